import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.process import (
    DidNotStartError,
    Ledger,
    Process,
    Program,
    accepts_connections,
    eventually,
    free_port,
    is_free,
    signals_wait,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state.json")


def program(tmp_path: Path, script: str, ready_line: str | None = "ready") -> Program:
    return Program(
        name="program",
        command=[sys.executable, "-c", script],
        log=tmp_path / "program.log",
        port=free_port(),
        ready_line=ready_line,
    )


def test_a_free_port_can_be_bound_and_a_taken_one_cannot() -> None:
    assert is_free(free_port())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert accepts_connections(port)
    assert not accepts_connections(port)


def test_a_process_is_alive_until_it_ends() -> None:
    myself = Process.of(os.getpid())
    assert myself is not None
    assert myself.alive


def test_a_pid_that_is_used_again_is_another_process() -> None:
    predecessor = Process(os.getpid(), "long ago")
    assert not predecessor.alive
    predecessor.send(signal.SIGKILL)  # and we are still here


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"], stdin=subprocess.DEVNULL) as child:
        assert eventually(lambda: Process.of(child.pid) is None, timeout_s=5)


def test_a_ready_program_is_ended_by_its_signal(tmp_path: Path) -> None:
    sleeper = program(tmp_path, "print('ready', flush=True); import time; time.sleep(60)")
    process = sleeper.launch()
    sleeper.await_ready(process)
    process.end(sleeper.stop_signal)
    assert not process.alive


def test_a_program_that_ignores_its_signal_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    stubborn = program(tmp_path, script)
    process = stubborn.launch()
    stubborn.await_ready(process)
    process.end(signal.SIGTERM, timeout_s=0.1)
    assert not process.alive


def test_a_program_that_ends_before_it_is_ready_shows_what_it_said(tmp_path: Path) -> None:
    broken = program(tmp_path, "raise SystemExit('no such thing')")
    with pytest.raises(DidNotStartError, match=r"program did not start.*\n    no such thing") as caught:
        broken.await_ready(broken.launch())
    assert not caught.value.lost_its_port


def test_what_a_program_said_in_its_last_run_does_not_make_it_ready(tmp_path: Path) -> None:
    program(tmp_path, "print('ready')").launch().end(signal.SIGTERM)
    silent = program(tmp_path, "raise SystemExit('eaddrinuse')")
    with pytest.raises(DidNotStartError) as caught:
        silent.await_ready(silent.launch())
    assert caught.value.lost_its_port


def test_a_program_sees_no_setting_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://canary/")
    curious = program(tmp_path, "import json, os; print(json.dumps(dict(os.environ)), flush=True)")
    process = curious.launch()
    assert eventually(lambda: not process.alive, timeout_s=10)
    assert set(json.loads(curious.log.read_text())) <= {"PATH", "LANG", "LC_CTYPE"}


def test_the_ledger_knows_only_processes_that_are_alive(ledger: Ledger) -> None:
    myself = Process.of(os.getpid())
    assert myself is not None
    ledger.keep_process("living", myself)
    ledger.keep_process("gone", Process(os.getpid(), "long ago"))
    assert ledger.process("living") == myself
    assert ledger.process("gone") is None
    assert ledger.process("never was") is None


def test_the_ledger_keeps_ports_when_it_forgets_processes(ledger: Ledger) -> None:
    myself = Process.of(os.getpid())
    assert myself is not None
    ledger.keep_ports({"amqp": 20_000})
    ledger.keep_process("living", myself)
    ledger.forget_processes()
    assert ledger.ports() == {"amqp": 20_000}
    assert ledger.process("living") is None


def test_a_signal_waits_until_what_must_not_be_interrupted_is_done() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), signals_wait():  # noqa: PT012 what follows the signal is what is tested
        signal.raise_signal(signal.SIGINT)
        done.append("all of it")
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
