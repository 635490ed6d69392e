"""The README's programs do what it says, against a running worker."""

import asyncio
import re
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import aio_pika
import pytest

from schemas.topology import EXCHANGE

pytestmark = pytest.mark.real

ROOT = Path(__file__).parent.parent.parent
NOT_AN_IMAGE = "data:image/png;base64,AAAA"
TIMEOUT_S = 60

Run: TypeAlias = Callable[..., Coroutine[None, None, tuple[int | None, str, str]]]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with the README's programs, each under the name in its first line, and their Node.js packages."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:python|js)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if named := re.match(r"(?:#|//) (\w+\.(?:py|mjs))\b", block):
            (tmp_path / named[1]).write_text(block, encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(ROOT / "tests" / "node" / "node_modules")
    return tmp_path


@asynccontextmanager
async def started(program: Path, *arguments: str, amqp_url: str) -> AsyncIterator[Process]:
    interpreter = sys.executable if program.suffix == ".py" else shutil.which("node")
    assert interpreter, "run `sandbox/setup node`"
    env = {"AMQP_URL": amqp_url}
    process = await asyncio.create_subprocess_exec(
        interpreter, str(program), *arguments, env=env, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def run(programs: Path, amqp_url: str) -> Run:
    async def run(program: str, *arguments: str) -> tuple[int | None, str, str]:
        async with started(programs / program, *arguments, amqp_url=amqp_url) as process:
            out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
        return process.returncode, out.decode(), err.decode()

    return run


async def test_the_python_programs_publish_an_image_and_hear_that_it_is_stored(
    worker: object, programs: Path, run: Run, amqp_url: str, image_url: str
) -> None:
    async with started(programs / "subscribe.py", amqp_url=amqp_url) as subscriber:
        assert subscriber.stdout
        assert await asyncio.wait_for(subscriber.stdout.readline(), TIMEOUT_S) == b"listening\n"
        code, event_id, err = await run("publish.py", image_url)
        assert (code, err) == (0, "")
        assert event_id == f"{UUID(event_id.strip())}\n"
        heard = (await asyncio.wait_for(subscriber.stdout.readline(), TIMEOUT_S)).decode()
    assert re.fullmatch(
        r"image\.upload\.completed abc123 https?://\S+/users/test@factory-buy\.com/jobs/abc123/image-\S+\.png\n", heard
    )


async def test_the_node_program_hears_that_its_image_is_stored(worker: object, run: Run, image_url: str) -> None:
    code, out, err = await run("publish.mjs", image_url)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"image\.upload\.completed abc123 https?://\S+\.png\n", out)


async def test_the_node_program_hears_that_its_image_has_failed(worker: object, run: Run) -> None:
    code, out, err = await run("publish.mjs", NOT_AN_IMAGE)
    assert (code, err) == (0, "")
    assert out.startswith("image.upload.failed abc123 not_an_image: ")


@pytest.mark.parametrize("program", ["publish.py", "publish.mjs"])
async def test_a_program_fails_when_no_queue_takes_its_event(run: Run, amqp_url: str, program: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
        await channel.declare_exchange(EXCHANGE, "topic", durable=True)
    code, out, err = await run(program, "https://cdn.example.com/fox.png")
    assert (code, out) == (1, "")
    assert "`image-uploads declare`" in err
