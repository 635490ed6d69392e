"""`make demo` shows the main job on real input, touches nothing of its caller's, and leaves nothing running."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from sandbox.process import Process
from tests.e2e.product_process import basics

pytestmark = pytest.mark.real

CANARY = "canary-19c2e8"


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """A port that nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def not_for_the_demo(trap: socket.socket) -> dict[str, str]:
    """Settings of whoever calls it, all of which lead into the trap."""
    address = f"127.0.0.1:{trap.getsockname()[1]}"
    return {
        "AMQP_URL": f"amqp://{CANARY}:{CANARY}@{address}/",
        "DATABASE_URL": f"postgresql://{CANARY}:{CANARY}@{address}/{CANARY}",
        "OSS_BUCKET": CANARY,
        "OSS_REGION": CANARY,
        "OSS_ACCESS_KEY": CANARY,
        "OSS_SECRET": CANARY,
        "OSS_ENDPOINT": f"http://{address}",
        "OSS_BASE_URL": f"http://{address}/{CANARY}",
        "TEMP_DIR": f"/{CANARY}",
        "SOURCE_ALLOWED_HOSTS": CANARY,
        "RETRY_DELAYS_S": CANARY,
        "METRICS_PORT": CANARY,
        "LOG_LEVEL": CANARY,
    }


StartDemo = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_demo(not_for_the_demo: dict[str, str], tmp_path: Path) -> Iterator[StartDemo]:
    """Starts the demo without a terminal, where both the environment and a `.env` try to mislead it."""
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in not_for_the_demo.items()))
    with ExitStack() as stack:

        def start(**more: str) -> "subprocess.Popen[str]":
            running = subprocess.Popen(
                [sys.executable, "-m", "sandbox", "demo"],
                cwd=tmp_path,
                env={**basics(tmp_path), **not_for_the_demo, **more},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(running)
            stack.callback(running.kill)
            return running

        yield start


def lines_until(demo: "subprocess.Popen[str]", is_last: Callable[[str], bool]) -> Iterator[str]:
    assert demo.stdout is not None
    for line in demo.stdout:
        yield line
        if is_last(line):
            return


def parents() -> dict[int, int]:
    """Who started whom, of all processes there are."""
    if sys.platform != "linux":
        listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        return {int(child): int(parent) for child, parent in map(str.split, listed.splitlines())}
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return found


def running_in(directory: Path) -> list[str]:
    """Command lines of all processes whose working directory is in this one; only Linux tells."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(directory):
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def processes_under(pid: int) -> list[Process]:
    """Those of a process's children, and of theirs, that are alive."""
    of, found = parents(), {pid}
    while more := {child for child, parent in of.items() if parent in found} - found:
        found |= more
    return [process for child in found - {pid} if (process := Process.of(child))]


def test_the_demo_ends_with_a_complete_table_and_nothing_running(
    start_demo: StartDemo, trap: socket.socket, tmp_path: Path
) -> None:
    demo = start_demo()
    before = list(lines_until(demo, lambda line: line.startswith("publishing")))
    running = processes_under(demo.pid)
    said = "".join([*before, *lines_until(demo, lambda _: False)])
    assert demo.wait(60) == 0, said

    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    table = {job.removeprefix("✓ ").partition("-")[0]: rest for job, *rest in cells}
    for name, extension in {"dawn": "jpg", "noon": "png", "dusk": "webp", "night": "gif"}.items():
        outcome, url, row, took = table.pop(name)
        assert outcome == "stored"
        key = rf"users/demo@example\.com/jobs/{name}-\w+/image-\d+-[0-9a-f]{{16}}\.{extension}"
        assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/sandbox-images/{key}", url)
        assert re.fullmatch(r"job_outputs [0-9a-f-]{36}", row)
        assert re.fullmatch(r"\d+ ms", took)
    for name, reason in {"pretender": "not_an_image", "forbidden": "source_forbidden"}.items():
        outcome, url, row, _ = table.pop(name)
        assert (outcome, url) == (f"failed: {reason}", "")
        assert re.fullmatch(r"job_failures [0-9a-f-]{36}", row)
    assert table == {}
    assert "4 objects read back byte-identical" in said
    assert 'SELECT * FROM job_outputs ORDER BY "createdAt" DESC LIMIT 1; answered with job' in said

    assert len(running) >= 5  # RabbitMQ, PostgreSQL, the OSS-protocol server, the worker, and who ends them all
    assert [process for process in running if process.alive] == []
    assert os.listdir(tmp_path / ".sandbox") == []  # noqa: PTH208 it reads better
    assert CANARY not in said
    with pytest.raises(BlockingIOError):  # nobody waits there
        trap.accept()


def test_a_demo_that_is_stopped_in_the_middle_leaves_nothing_running(start_demo: StartDemo, tmp_path: Path) -> None:
    demo = start_demo()
    before = list(lines_until(demo, lambda line: line.startswith("starting the worker")))
    running = processes_under(demo.pid)
    demo.send_signal(signal.SIGTERM)
    said = "".join([*before, *lines_until(demo, lambda _: False)])
    assert demo.wait(60) == 130, said

    assert len(running) >= 4
    assert [process for process in running if process.alive] == []
    assert running_in(tmp_path) == []  # what was started after we looked
    assert "Traceback" not in said


def test_a_demo_whose_broker_does_not_start_says_where_its_log_is_and_fails(
    start_demo: StartDemo, tmp_path: Path
) -> None:
    broken = tmp_path / "rabbitmq-server"
    broken.write_text("#!/bin/sh\necho no memory left\nexit 1\n")
    broken.chmod(0o755)
    demo = start_demo(SANDBOX_RABBITMQ_SERVER=str(broken))
    before = list(lines_until(demo, lambda line: line.startswith("starting RabbitMQ")))
    running = processes_under(demo.pid)
    said = "".join([*before, *lines_until(demo, lambda _: False)])
    assert demo.wait(60) == 1, said

    found = re.search(r"did not start\. Its log \((.+)\) ends:\n +no memory left\n", said)
    assert found
    assert Path(found[1]).read_text() == "no memory left\n"
    assert len(running) >= 2
    assert [process for process in running if process.alive] == []
    assert "Traceback" not in said
