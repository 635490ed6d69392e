"""`image-uploads-producer publish` and `cleanup` on a real RabbitMQ, with this test in the place of the worker."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage, AbstractQueue
from pamqp.common import FieldTable

from schemas.events import (
    CleanupCompleted,
    CleanupCompletedData,
    CleanupRequested,
    CleanupTaskResult,
    CloudEvent,
    ImageGenerated,
    ImageOutputExpired,
    ImageOutputExpiredData,
    ImageUploadCompleted,
    ImageUploadCompletedData,
    ImageUploadDelayed,
    ImageUploadDelayedData,
    ImageUploadFailed,
    ImageUploadFailedData,
    output_id,
)
from schemas.reasons import Reason
from schemas.topology import EXCHANGE
from tests import programs
from tests.named_servers import Broker

pytestmark = pytest.mark.real

URL = "https://cdn.example.com/fox.png"
STORED = "https://bucket.example.com/users/a/jobs/1/image-1-0.png"


@dataclass
class Worker:
    """Plays the worker: takes events, and announces what the test wants."""

    exchange: AbstractExchange
    queue: AbstractQueue
    taken: asyncio.Queue[AbstractIncomingMessage]

    async def take(self) -> ImageGenerated:
        return ImageGenerated.model_validate_json((await self._next()).body)

    async def take_request(self) -> CleanupRequested:
        return CleanupRequested.model_validate_json((await self._next()).body)

    async def _next(self) -> AbstractIncomingMessage:
        return await asyncio.wait_for(self.taken.get(), 30)

    async def announce(self, event: CloudEvent[Any]) -> None:
        await self.exchange.publish(aio_pika.Message(event.body()), event.TYPE, mandatory=False)


@dataclass
class Ended:
    """How a run of the command ended."""

    code: int | None
    out: str
    err: str


Run: TypeAlias = Callable[..., Coroutine[None, None, Ended]]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "shared files"


@pytest.fixture
def run(amqp_url: str, shared: Path, tmp_path: Path) -> Run:
    async def run(*arguments: str, typed: bytes = b"", terminal: Path | None = None, command: str = "publish") -> Ended:
        env = {"AMQP_URL": amqp_url, "TEMP_DIR": str(shared), "TERM": "xterm"}
        written = tmp_path / uuid4().hex
        out, err, keyed = (written.with_suffix(suffix) for suffix in (".out", ".err", ".typed"))
        keyed.write_bytes(typed)
        user = ["--user", "test@factory-buy.com"] if command == "publish" else []
        words = ["producer", command, *arguments, *user]
        process = programs.start(words, env, tmp_path, out, terminal or err, keyed)
        await asyncio.to_thread(process.join, 60)
        return Ended(process.exitcode, out.read_text(), "" if terminal else err.read_text())

    return run


@pytest.fixture
async def worker(amqp_url: str) -> AsyncIterator[Worker]:
    async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
        exchange = await channel.declare_exchange(EXCHANGE, "topic", durable=True)
        queue = await channel.declare_queue("events", durable=True, arguments={"x-queue-type": "classic"})
        await queue.bind(exchange, ImageGenerated.TYPE)
        await queue.bind(exchange, CleanupRequested.TYPE)
        taken: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(taken.put, no_ack=True)
        yield Worker(exchange, queue, taken)


def cause(event: ImageGenerated) -> dict[str, Any]:
    return {
        "cause_id": event.id,
        "cause_source": event.source,
        "job_id": event.data.job_id,
        "user_id": event.data.user_id,
    }


def completed(event: ImageGenerated) -> ImageUploadCompleted:
    data = ImageUploadCompletedData(
        **cause(event),
        output_id=uuid4(),
        image_url=STORED,
        oss_bucket="bucket",
        oss_key="users/a/jobs/1/image-1-0.png",
        content_type="image/png",
        size_bytes=6,
        width=1,
        height=1,
        crc64="0",
        prompt=event.data.prompt,
        metadata=event.data.metadata,
        created_at=datetime.now(UTC),
        expires_at=None,
    )
    return ImageUploadCompleted(id=str(uuid4()), time=datetime.now(UTC), data=data)


def failed(event: ImageGenerated) -> ImageUploadFailed:
    data = ImageUploadFailedData(
        **cause(event),
        reason=Reason.SOURCE_GONE,
        detail="cdn.example.com answered 404",
        attempts=3,
        failed_at=datetime.now(UTC),
    )
    return ImageUploadFailed(id=str(uuid4()), time=datetime.now(UTC), data=data)


def delayed(event: ImageGenerated) -> ImageUploadDelayed:
    data = ImageUploadDelayedData(
        **cause(event), reason=Reason.SOURCE_UNAVAILABLE, attempt=1, held=False, next_try_at=datetime.now(UTC)
    )
    return ImageUploadDelayed(id=str(uuid4()), time=datetime.now(UTC), data=data)


def expired(event: ImageGenerated) -> ImageOutputExpired:
    data = ImageOutputExpiredData(
        output_id=output_id(event.source, event.id),
        job_id=event.data.job_id,
        user_id=event.data.user_id,
        oss_key="users/a/jobs/1/image-1-0.png",
        expired_at=datetime(2026, 11, 20, 7, tzinfo=UTC),
    )
    return ImageOutputExpired(id=str(uuid4()), time=datetime.now(UTC), data=data)


def cleaned(request: CleanupRequested, *errors: str) -> CleanupCompleted:
    data = CleanupCompletedData(
        cause_id=request.id,
        tasks={
            "temp": CleanupTaskResult(count=2, bytes=204_800, skipped="backlog"),
            "expired": CleanupTaskResult(count=5000, bytes=512_000_000, complete=False),
            "orphans": CleanupTaskResult(count=1, bytes=17, keys=("users/a/jobs/1/image-1-0.png",)),
        },
        duration_s=0.5,
        dry_run=request.data.dry_run,
        errors=errors,
    )
    return CleanupCompleted(id=str(uuid4()), time=datetime.now(UTC), data=data)


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def path_of(event: ImageGenerated) -> Path:
    url = urlsplit(event.data.image_url)
    assert (url.scheme, url.netloc) == ("file", "")
    return Path(unquote(url.path))


async def test_a_url_is_published_and_the_id_of_its_event_printed(run: Run, worker: Worker) -> None:
    ended = await run(URL, "--job", "abc123", "--prompt", "a red fox", "--metadata", '{"model": "sdxl"}')
    event = await worker.take()
    assert (ended.code, ended.out) == (0, f"{event.id}\n")
    assert ended.err == "published for job abc123\n"
    assert (event.source, event.data.image_url, event.data.job_id) == ("/generators/cli", URL, "abc123")
    assert (event.data.prompt, event.data.metadata) == ("a red fox", {"model": "sdxl"})


async def test_the_event_has_the_id_source_and_expiry_that_it_was_given(run: Run, worker: Worker) -> None:
    ended = await run(URL, "--id", "17", "--source", "/g", "--expires-at", "2999-01-31T01:00:00+01:00")
    event = await worker.take()
    assert (ended.code, ended.out) == (0, "17\n")
    assert (event.source, event.data.expires_at) == ("/g", datetime(2999, 1, 31, tzinfo=UTC))


async def test_every_event_has_a_job_of_its_own_unless_told_otherwise(run: Run, worker: Worker) -> None:
    await asyncio.gather(run(URL), run(URL))
    assert (await worker.take()).data.job_id != (await worker.take()).data.job_id


async def test_a_local_file_is_handed_over_through_temp_dir(
    run: Run, worker: Worker, shared: Path, tmp_path: Path
) -> None:
    (tmp_path / "red fox.png").write_bytes(b"pixels")
    ended = await run(str(tmp_path / "red fox.png"))
    path = path_of(await worker.take())
    assert ended.code == 0
    assert (path.parent, path.suffix, path.read_bytes()) == (shared, ".png", b"pixels")
    assert files_in(shared) == [path]


async def test_standard_input_is_handed_over_through_temp_dir(run: Run, worker: Worker) -> None:
    ended = await run("-", typed=b"pixels" * 100_000)
    assert ended.code == 0
    assert path_of(await worker.take()).read_bytes() == b"pixels" * 100_000


async def test_an_event_that_no_queue_takes_is_code_1_and_leaves_no_file(
    run: Run, worker: Worker, shared: Path
) -> None:
    await worker.queue.unbind(worker.exchange, ImageGenerated.TYPE)
    ended = await run("-", typed=b"pixels")
    assert (ended.code, ended.out) == (1, "")
    assert "`image-uploads declare`" in ended.err
    assert ended.err.count("\n") == 1
    assert not files_in(shared)


async def test_a_broker_without_the_exchange_is_code_1_even_before_waiting(run: Run, shared: Path) -> None:
    ended = await run("-", "--wait", typed=b"pixels")
    assert ended.code == 1
    assert "no exchange images" in ended.err
    assert "`image-uploads declare`" in ended.err
    assert not files_in(shared)


async def test_the_file_stays_when_the_broker_may_have_the_event(
    run: Run, worker: Worker, amqp_url: str, shared: Path
) -> None:
    async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
        full: FieldTable = {"x-queue-type": "classic", "x-max-length": 0, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue("full", exclusive=True, arguments=full)
        await queue.bind(EXCHANGE, "#")
        ended = await run("-", typed=b"pixels")
    assert ended.code == 1
    assert "may or may not be published" in ended.err
    assert path_of(await worker.take()).read_bytes() == b"pixels"


async def test_waiting_prints_the_url_of_the_stored_object(run: Run, worker: Worker) -> None:
    async with asyncio.TaskGroup() as tasks:
        command = tasks.create_task(run(URL, "--wait"))
        event = await worker.take()
        await worker.announce(failed(event.model_copy(update={"source": "/generators/another"})))
        await worker.announce(failed(event.model_copy(update={"id": "another"})))
        await worker.announce(delayed(event))
        await worker.announce(completed(event))
    ended = command.result()
    assert (ended.code, ended.out) == (0, f"{STORED}\n")
    assert ended.err.startswith("delayed by source_unavailable; next try at ")


async def test_waiting_for_an_image_that_fails_is_code_1_with_the_reason(run: Run, worker: Worker) -> None:
    async with asyncio.TaskGroup() as tasks:
        command = tasks.create_task(run(URL, "--wait"))
        await worker.announce(failed(await worker.take()))
    ended = command.result()
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "Error: source_gone: cdn.example.com answered 404\n"


async def test_waiting_for_a_repeated_event_ends_when_its_output_has_expired(run: Run, worker: Worker) -> None:
    async with asyncio.TaskGroup() as tasks:
        plain = tasks.create_task(run(URL, "--wait"))
        await worker.announce(expired(await worker.take()))
    async with asyncio.TaskGroup() as tasks:
        as_json = tasks.create_task(run(URL, "--wait", "--json"))
        await worker.announce(expired(await worker.take()))
    assert (plain.result().code, plain.result().out) == (1, "")
    assert plain.result().err == "Error: the output of this event expired at 2026-11-20T07:00:00Z\n"
    assert as_json.result().code == 1
    assert json.loads(as_json.result().out)["outcome"]["type"] == "image.output.expired"


async def test_messages_that_make_no_sense_are_not_taken_for_the_outcome(run: Run, worker: Worker) -> None:
    async with asyncio.TaskGroup() as tasks:
        command = tasks.create_task(run(URL, "--wait"))
        event = await worker.take()
        broken = {"data": {"causeId": event.id, "causeSource": event.source}}
        for body in (b"", b"\xff", b"[]", b'{"data": []}', b'{"data": null}', json.dumps(broken).encode()):
            await worker.exchange.publish(aio_pika.Message(body), ImageUploadCompleted.TYPE, mandatory=False)
        await worker.announce(completed(event))
    assert command.result().out == f"{STORED}\n"


async def test_waiting_ends_with_code_1_when_the_time_is_up_and_the_file_stays(
    run: Run, worker: Worker, shared: Path
) -> None:
    ended = await run("-", "--wait", "--timeout", "0.2", typed=b"pixels")
    assert ended.code == 1
    assert "is published, but had no outcome within 0.2 s" in ended.err
    assert files_in(shared) == [path_of(await worker.take())]


async def test_waiting_ends_with_code_1_when_the_connection_is_lost(
    run: Run, worker: Worker, broker: Broker, amqp_url: str
) -> None:
    async with asyncio.TaskGroup() as tasks:
        command = tasks.create_task(run(URL, "--wait"))
        await worker.take()
        await asyncio.to_thread(broker.delete_vhost, urlsplit(amqp_url).path[1:])
    ended = command.result()
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "the connection was lost before event" in ended.err
    broker.add_vhost(urlsplit(amqp_url).path[1:])


async def test_json_says_what_was_published(run: Run, worker: Worker) -> None:
    ended = await run(URL, "--json", "--job", "1")
    event = await worker.take()
    assert json.loads(ended.out) == {"id": event.id, "source": "/generators/cli", "jobId": "1", "outcome": None}


async def test_json_says_what_became_of_it(run: Run, worker: Worker) -> None:
    async with asyncio.TaskGroup() as tasks:
        command = tasks.create_task(run(URL, "--json", "--wait"))
        await worker.announce(failed(await worker.take()))
    ended = command.result()
    outcome = json.loads(ended.out)["outcome"]
    assert (ended.code, ended.err) == (1, "")
    assert (outcome["type"], outcome["data"]["reason"]) == ("image.upload.failed", "source_gone")


async def test_something_moves_on_a_terminal_while_waiting(run: Run, worker: Worker) -> None:
    ours, theirs = os.openpty()
    try:
        async with asyncio.TaskGroup() as tasks:
            command = tasks.create_task(run(URL, "--wait", terminal=Path(os.ttyname(theirs))))
            await worker.announce(completed(await worker.take()))
        assert command.result().out == f"{STORED}\n"
        assert b"waiting for the outcome" in os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_cleanup_is_asked_for_and_the_id_of_the_request_printed(run: Run, worker: Worker) -> None:
    ended = await run(command="cleanup")
    request = await worker.take_request()
    assert (ended.code, ended.out, ended.err) == (0, f"{request.id}\n", "a cleanup is asked for\n")
    assert (request.source, request.data.dry_run) == ("/operators/cli", False)
    assert request.data.tasks == ("temp", "expired", "orphans")


async def test_the_tasks_of_a_cleanup_can_be_named(run: Run, worker: Worker) -> None:
    ended = await run("--task", "expired", "--task", "temp", "--dry-run", "--json", command="cleanup")
    request = await worker.take_request()
    assert json.loads(ended.out) == {"causeId": request.id}
    assert (request.data.tasks, request.data.dry_run) == (("expired", "temp"), True)


async def test_waiting_for_a_cleanup_prints_what_its_own_run_did(run: Run, worker: Worker) -> None:
    async with asyncio.TaskGroup() as tasks:
        command = tasks.create_task(run("--wait", command="cleanup"))
        request = await worker.take_request()
        await worker.announce(cleaned(request.model_copy(update={"id": "another"}), "not ours"))
        await worker.announce(cleaned(request))
    ended = command.result()
    assert (ended.code, ended.err) == (0, "")
    assert [line.split() for line in ended.out.splitlines()] == [
        ["task", "result", "size", "note"],
        ["temp", "2", "removed", "204.8", "kB", "skipped:", "backlog"],
        ["expired", "5000", "removed", "512.0", "MB", "unfinished:", "the", "next", "run", "goes", "on"],
        ["orphans", "1", "found", "17", "bytes"],
    ]


async def test_a_rehearsed_cleanup_says_what_would_be_removed(run: Run, worker: Worker) -> None:
    async with asyncio.TaskGroup() as tasks:
        command = tasks.create_task(run("--wait", "--dry-run", command="cleanup"))
        await worker.announce(cleaned(await worker.take_request()))
    assert "5000 would be removed" in command.result().out
    assert "1 found" in command.result().out


async def test_a_cleanup_that_met_with_errors_is_code_1_and_prints_them_without_control_characters(
    run: Run, worker: Worker
) -> None:
    async with asyncio.TaskGroup() as tasks:
        command = tasks.create_task(run("--wait", command="cleanup"))
        await worker.announce(cleaned(await worker.take_request(), "temp: fox\n\x1b.png: Permission denied"))
    ended = command.result()
    assert ended.code == 1
    assert ended.err == "Error: temp: fox\ufffd\ufffd.png: Permission denied\n"
    assert "5000 removed" in ended.out


async def test_json_says_what_a_cleanup_did(run: Run, worker: Worker) -> None:
    async with asyncio.TaskGroup() as tasks:
        command = tasks.create_task(run("--wait", "--json", command="cleanup"))
        request = await worker.take_request()
        await worker.announce(cleaned(request, "expired: OSS answered 503"))
    ended = command.result()
    assert (ended.code, ended.err) == (1, "")
    data = json.loads(ended.out)
    assert (data["causeId"], data["errors"]) == (request.id, ["expired: OSS answered 503"])
    assert data["tasks"]["orphans"]["keys"] == ["users/a/jobs/1/image-1-0.png"]


async def test_a_full_queue_of_cleanups_is_code_1(run: Run, worker: Worker, amqp_url: str) -> None:
    await worker.queue.unbind(worker.exchange, CleanupRequested.TYPE)
    async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
        full: FieldTable = {"x-queue-type": "classic", "x-max-length": 0, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue("full", exclusive=True, arguments=full)
        await queue.bind(EXCHANGE, CleanupRequested.TYPE)
        ended = await run("--wait", command="cleanup")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("Error: a cleanup is already queued")
    assert ended.err.count("\n") == 1


async def test_waiting_for_a_cleanup_ends_with_code_1_when_the_time_is_up(run: Run, worker: Worker) -> None:
    ended = await run("--wait", "--timeout", "0.2", command="cleanup")
    assert ended.code == 1
    assert f"event {(await worker.take_request()).id} is published, but had no outcome within 0.2 s" in ended.err
