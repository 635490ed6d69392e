"""What operators type: dead letters replayed and discarded, events announced again, jobs traced."""

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import aio_pika
import asyncpg
import pytest
import pytest_asyncio
from fastcrc import crc64
from rich.filesize import decimal

from consumer.adapters import migrations, postgres
from consumer.adapters.oss import OssStore
from consumer.adapters.postgres_records import PostgresRecords
from consumer.adapters.rabbit_publisher import RabbitPublisher
from consumer.core.errors import BrokerError
from consumer.core.ports import Delivery, Image
from consumer.core.records import Cause
from consumer.operate.choice import Choice
from consumer.operate.dead_letters import Order, Replay, Tally, work_off
from consumer.settings import OssSettings
from sandbox.process import free_port
from schemas import topology
from schemas.environment import load
from schemas.events import CONTENT_TYPE, ImageGenerated
from tests import programs, samples
from tests.e2e.image_host import ImageHost
from tests.e2e.product_process import WorkerProcess, basics
from tests.e2e.watched_oss import WatchedOss
from tests.e2e.wire import COMPLETED, FAILED, Wire, event

pytestmark = pytest.mark.real

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HTML = b"<!doctype html><title>not an image</title>"
CANARY = "canary-that-nobody-may-see"
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Said:
    """What a command has said."""

    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Operator:
    """Somebody who types commands where these settings are set, and no secret of theirs is ever shown."""

    def __init__(self, settings: Mapping[str, str], directory: Path) -> None:
        self.settings = settings
        self.directory = directory
        directory.mkdir()

    def begin(self, *words: str, more: Mapping[str, str] | None = None, terminal: Path | None = None) -> Any:
        """The command has been started."""
        env = {**basics(self.directory), **self.settings, **(more or {})}
        if terminal:
            env["TERM"] = "xterm"
            return programs.start(["consumer", *words], env, self.directory, terminal, typed=terminal)
        out, err = self.directory / "out", self.directory / "err"
        out.write_text("")
        err.write_text("")
        return programs.start(["consumer", *words], env, self.directory, out, err)

    def end(self, process: Any) -> Said:
        """The command has ended."""
        process.join(_TIMEOUT_S)
        said = Said(process.exitcode, (self.directory / "out").read_text(), (self.directory / "err").read_text())
        assert process.exitcode is not None, said
        assert "Traceback" not in said.err, said.err
        assert CANARY not in said.out + said.err
        return said

    def types(self, *words: str, **more: str) -> Said:
        """What the command says."""
        return self.end(self.begin(*words, more=more))


@pytest.fixture
def operator(settings: dict[str, str], tmp_path: Path) -> Operator:
    return Operator(settings, tmp_path / "operator")


@pytest_asyncio.fixture
async def records(database_url: str) -> AsyncIterator[PostgresRecords]:
    pool = await postgres.open_pool(database_url)
    await migrations.migrate(pool)
    yield PostgresRecords(pool)
    await postgres.close_pool(pool)


async def bury(wire: Wire, event: ImageGenerated, reason: str = "not_an_image") -> ImageGenerated:
    """The event is a dead letter, as a worker might have left it."""
    headers: dict[str, Any] = {"x-reason": reason, "x-detail": "no image", "x-failed-at": "2026-11-22T12:00:00+00:00"}
    message = aio_pika.Message(event.body(), headers=headers, message_id=event.id, content_type=CONTENT_TYPE)
    await wire._channel.default_exchange.publish(message, topology.DEAD_QUEUE)
    return event


async def some_waiting(wire: Wire, queue: str) -> int:
    """How many there are, once what a closed channel held is given back."""
    async with asyncio.timeout(_TIMEOUT_S):
        while not (count := await wire.waiting(queue)):  # noqa: ASYNC110 the broker tells nobody
            await asyncio.sleep(0.02)
    return count


async def await_waiting(wire: Wire, queue: str, count: int) -> None:
    """What a closed channel held is given back a moment later."""
    async with asyncio.timeout(_TIMEOUT_S):
        while await wire.waiting(queue) != count:  # noqa: ASYNC110 the broker tells nobody
            await asyncio.sleep(0.02)


async def test_a_letter_whose_cause_was_mended_is_replayed_stored_and_traced(
    operator: Operator,
    worker: WorkerProcess,
    wire: Wire,
    database: Database,
    image_host: ImageHost,
    oss: WatchedOss,
    png: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"{image_host.give('fox.png', HTML)}?token={CANARY}"
    await wire.publish(published := event(url, "mended"))
    await wire.failure(published)
    await await_waiting(wire, topology.DEAD_QUEUE, 1)

    (group,) = operator.types("dead", "list", "--json").json
    assert (group["reason"], group["count"], group["example"]["jobId"]) == ("not_an_image", 1, "mended")
    traced = operator.types("trace", "mended", "--json").json
    assert [entry["what"] for entry in traced["timeline"]] == ["event", "failed", "dead letter"]
    assert traced["contradictions"] == []

    image_host.give("fox.png", png)
    rehearsed = operator.types("dead", "replay", "--job", "mended", "--dry-run", "--json").json
    assert rehearsed == {"replayed": 1, "reasons": {"not_an_image": 1}, "dryRun": True}
    said = operator.types("dead", "replay", "--reason", "not_an_image")
    assert (said.code, said.out) == (0, "replayed: 1 dead letter (not_an_image 1)\n")
    await wire.completion(published)
    (failure,) = await database.fetch("SELECT * FROM job_failures")
    assert failure["resolvedAt"] is not None
    assert operator.types("dead", "list").out == "there is no such dead letter\n"

    said = operator.types("trace", "mended")
    assert said.code == 0
    for word in ("event", "failed", "resolved", "stored", "object", published.id[:8]):
        assert word in said.out
    traced = operator.types("trace", "mended", "--json").json
    order = [entry["what"] for entry in traced["timeline"]]
    assert order.index("event") < order.index("failed") < order.index("stored") < order.index("resolved")
    assert traced["contradictions"] == []

    (key,) = oss.puts
    for name, value in operator.settings.items():
        monkeypatch.setenv(name, value)
    store = OssStore(load(OssSettings), timeout_s=10)
    await store.delete(key)
    await store.close()
    row = await database.fetchval("SELECT id FROM job_outputs")
    traced = operator.types("trace", "mended", "--json").json
    assert traced["contradictions"] == [f"the row {row} has no object: {key} is not there"]
    assert "contradiction: the row" in operator.types("trace", "mended").out


class Dying:
    """A publisher whose process ends right after the broker has confirmed a copy."""

    def __init__(self, publisher: RabbitPublisher) -> None:
        self.publisher = publisher

    async def announce(self, event: Any) -> None:
        raise NotImplementedError

    async def copy(self, delivery: Delivery, queue: str, headers: Mapping[str, str | int]) -> None:
        await self.publisher.copy(delivery, queue, headers)
        raise BrokerError("gone")


@pytest.mark.parametrize("outcome", ["stored", "failed"])
async def test_a_replay_that_died_between_copy_and_ack_and_is_run_again_doubles_no_row(
    operator: Operator,
    worker: WorkerProcess,
    wire: Wire,
    database: Database,
    image_host: ImageHost,
    png: bytes,
    outcome: str,
) -> None:
    is_mended = outcome == "stored"
    await wire.publish(published := event(image_host.give("fox.png", HTML), "twice"))
    await wire.failure(published)
    await await_waiting(wire, topology.DEAD_QUEUE, 1)
    image_host.give("fox.png", png if is_mended else HTML)

    publisher = RabbitPublisher(amqp_url := operator.settings["AMQP_URL"], "test")
    with pytest.raises(BrokerError, match="gone"):
        await work_off(amqp_url, Order(Choice()), Replay(Dying(publisher)), Tally())
    await publisher.close()
    # Whatever became of the first copy, the letter is still there and makes a second one.
    said = await asyncio.to_thread(operator.types, "dead", "replay", "--job", "twice", "--limit", "1", "--json")
    assert said.json["replayed"] == 1

    if is_mended:
        await wire.hears(COMPLETED, 2, about=published)
        await await_waiting(wire, topology.DEAD_QUEUE, 0)
    else:
        await wire.hears(FAILED, 3, about=published)
        await await_waiting(wire, topology.DEAD_QUEUE, 2)
    assert await database.fetchval("SELECT count(*) FROM job_outputs") == int(is_mended)
    rows = await database.fetch('SELECT replays, "resolvedAt" FROM job_failures ORDER BY number')
    assert [row["replays"] for row in rows] == ([0] if is_mended else [0, 1])
    assert all((row["resolvedAt"] is not None) is is_mended for row in rows)


async def test_discarding_asks_or_wants_yes_and_frees_the_file_of_that_event_alone(
    operator: Operator, wire: Wire, temp_dir: Path
) -> None:
    files = [temp_dir / "one.png", temp_dir / "two.png"]
    for file, job in zip(files, ("one", "two"), strict=True):
        file.write_bytes(b"fox")
        await bury(wire, event(file.as_uri(), job))

    refused = operator.types("dead", "discard", "--job", "one")
    assert (refused.code, refused.out) == (2, "")
    assert "--yes" in refused.err
    rehearsed = operator.types("dead", "discard", "--job", "one", "--dry-run")
    assert (rehearsed.code, rehearsed.out) == (0, "would be discarded: 1 dead letter (not_an_image 1)\n")
    assert files[0].exists()
    said = operator.types("dead", "discard", "--job", "one", "--yes", "--json")
    assert said.json == {"discarded": 1, "reasons": {"not_an_image": 1}, "dryRun": False}
    assert [file.exists() for file in files] == [False, True]
    (left,) = operator.types("dead", "list", "--letters", "--json").json
    assert left["jobId"] == "two"


async def test_a_letter_is_shown_with_its_body_and_without_anybodys_secrets(operator: Operator, wire: Wire) -> None:
    url = f"https://user:{CANARY}@cdn.test/fox.png?signature={CANARY}"
    metadata = {"model": "sdxl", "from": [f"https://cdn.test/?{CANARY}"], f"https://x.test/?{CANARY}": 1}
    shown = await bury(wire, event(url, "shown", prompt="a red [bold]fox[/]", metadata=metadata))
    await bury(wire, event(f"data:image/png;base64,{CANARY}", "inline"))

    (letter,) = operator.types("dead", "show", shown.id, "--json").json
    assert (letter["jobId"], letter["reason"], letter["attempts"], letter["replays"]) == ("shown", "not_an_image", 1, 0)
    assert letter["headers"]["x-detail"] == letter["detail"] == "no image"
    assert letter["body"]["data"]["imageUrl"] == letter["imageUrl"] == "https://cdn.test/fox.png"
    assert letter["body"]["data"]["metadata"]["model"] == "sdxl"
    said = operator.types("dead", "show", "shown", "inline")
    assert said.code == 0
    assert '"prompt": "a red [bold]fox[/]"' in said.out
    assert "data:image/png;base64,…" in said.out
    said = operator.types("dead", "show", "shown", "nobody")
    assert said.code == 1
    assert "shown" in said.out
    assert said.err.endswith("no dead letter has the event, job or message id nobody\n")


async def test_what_was_announced_is_announced_again_as_equal_copies_in_the_order_of_the_rows(
    operator: Operator, worker: WorkerProcess, wire: Wire, database: Database, image_host: ImageHost, png: bytes
) -> None:
    good, bad = image_host.give("good.png", png), image_host.give("bad.png", HTML)
    metadata = {"b": [1.5, None], "a": {"ü": 12345678901234567890}}
    for number in range(4):
        published = event(bad if number == 2 else good, f"job-{number}", prompt="a fox", metadata=metadata)
        await wire.publish(published)
        await (wire.failure if number == 2 else wire.completion)(published)
    assert await asyncio.to_thread(worker.stop) == 0
    first = [(news.type, news.event) for news in wire.news]
    assert len(first) == 4

    assert operator.types("republish", "--dry-run").out == "would be announced: 3 completions, 1 failure\n"
    assert operator.types("republish", "--job", "job-1", "--json").json == {
        "completions": 1,
        "failures": 0,
        "dryRun": False,
    }
    assert operator.types("republish", "--until", "1h").out == "announced: 0 completions, 0 failures\n"
    assert operator.types("republish", "--since", "1h").out == "announced: 3 completions, 1 failure\n"
    assert operator.types("republish", "--limit", "1", "--user", "nobody").out.startswith("announced: 0 completions")
    assert operator.types("republish", "--limit", "2", "--rate", "50").out.startswith("announced: 2 completions")
    await wire.hears(COMPLETED, 3 + 1 + 3 + 2)
    again = [(news.type, news.event) for news in wire.news[4:]]
    assert again == [first[1], *first, *first[:2]]
    assert all(news.message.message_id == news.event["id"] for news in wire.news)

    await database.execute("""UPDATE job_outputs SET "deletedAt" = now() WHERE "jobId" = 'job-0'""")
    await database.execute("""UPDATE job_outputs SET "expiresAt" = now() WHERE "jobId" = 'job-1'""")
    await database.execute('UPDATE job_failures SET "resolvedAt" = now()')
    said = operator.types("republish", OSS_URL_EXPIRES_S="60")
    assert said.out == "announced: 1 completion, 0 failures\n"
    signed = (await wire.hears(COMPLETED, 10))[-1]
    assert signed.data["jobId"] == "job-3"
    assert "x-oss-signature=" in signed.data["imageUrl"]


async def test_a_job_of_which_nothing_is_known_is_told_in_a_sentence(
    operator: Operator, wire: Wire, records: PostgresRecords
) -> None:
    said = operator.types("trace", "nobody", "--json")
    assert (said.code, said.out) == (1, "")
    assert "nothing is known of the job nobody" in said.err


async def test_a_trace_goes_on_without_oss_and_finds_the_temp_file_of_a_failure(
    operator: Operator, wire: Wire, records: PostgresRecords, temp_dir: Path
) -> None:
    (file := temp_dir / "fox.png").write_bytes(HTML)
    failed, stored = event(file.as_uri(), "mixed"), event("https://cdn.test/fox.png", "mixed")
    await records.fail(samples.failure(Cause.of(failed)))
    await records.record(samples.output(stored, oss_bucket="e2e-images"))
    said = operator.types("trace", "mixed", "--json", OSS_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert said.code == 0
    texts = {entry["what"]: entry["text"] for entry in said.json["timeline"]}
    assert texts["temp file"] == f"{file.as_uri()} is there"
    assert "cannot be looked at: OSS did not answer" in texts["object"]
    assert said.json["contradictions"] == []


def test_who_is_away_is_told_in_one_sentence_at_once_and_no_password_is(operator: Operator) -> None:
    away = {
        "AMQP_URL": f"amqp://user:{CANARY}@127.0.0.1:{free_port()}/",
        "DATABASE_URL": f"postgresql://user:{CANARY}@127.0.0.1:{free_port()}/x",
    }
    for words in (("dead", "list"), ("dead", "replay"), ("dead", "discard", "--yes"), ("trace", "x")):
        said = operator.types(*words, **away)
        assert (said.code, said.out) == (1, "")
        assert "RabbitMQ at 127.0.0.1:" in said.err
    for line in ("republish", "expire --job x --yes", "reconcile"):
        said = operator.types(*line.split(), **away)
        assert (said.code, said.out) == (1, "")
        assert "PostgreSQL at 127.0.0.1:" in said.err
    assert operator.types("dead", "list", "--since", "soon").code == 2
    assert operator.types("dead", "list", "--reason", "bad_luck").code == 2
    assert operator.types("dead", "replay", "--rate", "0").code == 2


async def test_each_command_wants_no_more_settings_than_it_uses(
    operator: Operator, wire: Wire, records: PostgresRecords, tmp_path: Path
) -> None:
    def with_only(*names: str) -> Operator:
        directory = tmp_path / "-".join(("only", *names))
        return Operator({name: operator.settings[name] for name in names}, directory)

    broker = with_only("AMQP_URL")
    for words in (("list",), ("replay",)):
        assert broker.types("dead", *words).code == 0
    assert with_only("AMQP_URL", "TEMP_DIR").types("dead", "discard", "--yes").code == 0
    both = with_only("AMQP_URL", "DATABASE_URL")
    assert both.types("republish").code == 0
    assert with_only("DATABASE_URL").types("expire", "--job", "x", "--yes").code == 1  # there is none
    oss = [name for name in operator.settings if name.startswith("OSS_")]
    assert with_only("DATABASE_URL", *oss).types("reconcile").code == 0
    said = both.types("trace", "x")
    assert said.code == 2
    assert "set OSS_BUCKET, OSS_REGION, OSS_ACCESS_KEY, OSS_SECRET" in said.err


async def test_ctrl_c_ends_a_replay_between_two_letters_and_it_can_go_on(operator: Operator, wire: Wire) -> None:
    for number in range(5):
        await bury(wire, event("https://cdn.test/fox.png", f"job-{number}"))
    process = operator.begin("dead", "replay", "--rate", "0.5")
    await await_waiting(wire, topology.WORK_QUEUE, 1)
    os.kill(process.pid, signal.SIGINT)
    said = await asyncio.to_thread(operator.end, process)
    assert said.code == 130
    done = int(said.err.strip().removeprefix("replayed before it was broken off: "))
    assert done <= 1
    # The first is in the work queue; whether it is gone from the dead queue hangs on when exactly the signal came.
    left = await some_waiting(wire, topology.DEAD_QUEUE)
    assert left in (4, 5)
    assert operator.types("dead", "replay", "--json").json["replayed"] == left
    await await_waiting(wire, topology.DEAD_QUEUE, 0)
    assert await wire.waiting(topology.WORK_QUEUE) == 1 + left


@pytest.mark.parametrize(("answer", "left"), [("n", 2), ("y", 0)])
async def test_on_a_terminal_the_operator_is_asked_before_all_letters_are_replayed(
    operator: Operator, wire: Wire, answer: str, left: int
) -> None:
    for _ in range(2):
        await bury(wire, event("https://cdn.test/fox.png"))
    with terminal() as (keyboard, path):
        process = operator.begin("dead", "replay", terminal=path)
        os.write(keyboard, f"{answer}\n".encode())
        await asyncio.to_thread(process.join, _TIMEOUT_S)
        assert process.exitcode == (0 if answer == "y" else 1)
        screen = os.read(keyboard, 65_536).decode()
    assert "replay 2 dead letters (not_an_image 2)? [y/N]" in screen
    assert ("replayed: 2 dead letters" in screen) is ("2/2" in screen) is (answer == "y")  # the latter is the bar's
    await await_waiting(wire, topology.DEAD_QUEUE, left)


@contextmanager
def terminal() -> Iterator[tuple[int, Path]]:
    """A terminal: the side where somebody sits, and its device."""
    master, slave = os.openpty()
    try:
        yield master, Path(os.ttyname(slave))
    finally:
        os.close(master)
        os.close(slave)


async def test_what_was_stored_is_reconciled_expired_on_request_and_traced(
    operator: Operator, worker: WorkerProcess, wire: Wire, database: Database, image_host: ImageHost, png: bytes
) -> None:
    url = image_host.give("fox.png", png)
    for number in range(3):
        await wire.publish(published := event(url, f"job-{number}", user_id=f"user-{number % 2}"))
        await wire.completion(published)
    assert await asyncio.to_thread(worker.stop) == 0
    said = operator.types("reconcile", "--checksums")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("with 3 rows\nmatching: 3\nnothing differs\n")

    refused = operator.types("expire", "--user", "user-0")
    assert (refused.code, refused.out) == (2, "")
    assert "--yes" in refused.err
    size = 2 * len(png)
    rehearsed = operator.types("expire", "--user", "user-0", "--dry-run", "--json").json
    assert rehearsed == {"expired": 2, "bytes": size, "expiresAt": None, "dryRun": True}
    assert operator.types("expire", "--job", "job-1", "--dry-run").out.startswith("would be expired: 1 output, ")
    assert await database.fetchval('SELECT count("expiresAt") FROM job_outputs') == 0
    said = operator.types("expire", "--user", "user-0", "--yes")
    assert said.code == 0
    assert said.out.startswith(f"expired: 2 outputs, {decimal(size)}\n")
    assert "`image-uploads-producer cleanup --task expired --wait` does so now" in said.out
    rows = await database.fetch("""SELECT "userId" FROM job_outputs WHERE "expiresAt" <= now()""")
    assert [row["userId"] for row in rows] == ["user-0"] * 2
    again = operator.types("expire", "--user", "user-0", "--yes")
    assert (again.code, again.out) == (1, "")
    assert "no output of user user-0 is there that is not expired or deleted already" in again.err

    traced = operator.types("trace", "job-0", "--json").json
    assert "expired" in [entry["what"] for entry in traced["timeline"]]
    assert traced["contradictions"] == []
    said = operator.types("reconcile", "--json")
    assert said.code == 0
    assert said.json["findings"] == []
    counts = said.json["summary"]["counts"]
    assert (counts["matching"], counts["expired"]) == (1, 2)

    one = await database.fetchrow("""SELECT id, "sizeBytes" FROM job_outputs WHERE "jobId" = 'job-1'""")
    assert one
    said = operator.types("expire", "--output", str(one["id"]), "--yes", "--json")
    assert (said.json["expired"], said.json["bytes"]) == (1, one["sizeBytes"])
    assert datetime.fromisoformat(said.json["expiresAt"]).tzinfo is not None


async def test_what_differs_is_told_with_what_can_be_done_about_it_and_fails_the_command(
    operator: Operator, oss: WatchedOss, records: PostgresRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"users/{user}/jobs/j/image-1-1f3a9c02d4e5b677.png" for user in ("a", "a:b", "b")]
    for key in keys[:2]:
        await records.record(samples.output(samples.event(), oss_key=key, oss_bucket=oss.bucket))
    for name, value in operator.settings.items():
        monkeypatch.setenv(name, value)
    store = OssStore(load(OssSettings), timeout_s=10)
    await store.put(keys[2], Image(io.BytesIO(b"fox"), 3, crc64.xz(b"fox")), content_type="image/png", event_id="e")
    await store.close()

    said = operator.types("reconcile", "--json", ORPHAN_GRACE_S="0")
    assert said.code == 1
    expected = [("row without object", keys[0]), ("row without object", keys[1]), ("object without row", keys[2])]
    assert [(finding["what"], finding["key"]) for finding in said.json["findings"]] == expected
    assert set(said.json["summary"]["advice"]) == {"row without object", "object without row"}
    said = operator.types("reconcile", "--user", "a:b")
    assert said.code == 1
    assert keys[1] in said.out
    assert keys[0] not in said.out
    assert "row without object: 1 (announcing again does not help" in said.out
    said = operator.types("reconcile")
    assert "too young to tell: 1" in said.out
    with terminal() as (keyboard, path):
        process = operator.begin("reconcile", terminal=path)
        await asyncio.to_thread(process.join, _TIMEOUT_S)
        screen = os.read(keyboard, 65_536).decode()
    assert process.exitcode == 1
    assert f"row without object          {keys[0]} " in screen
    assert "keys " in screen.partition("row without object")[0]  # the bar's


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("y", 0)])
async def test_on_a_terminal_the_operator_is_asked_before_anything_expires(
    operator: Operator, records: PostgresRecords, database: Database, answer: str, left: int
) -> None:
    await records.record(samples.output(samples.event(job_id="job-1"), size_bytes=3_400_000))
    with terminal() as (keyboard, path):
        process = operator.begin("expire", "--job", "job-1", terminal=path)
        os.write(keyboard, f"{answer}\n".encode())
        await asyncio.to_thread(process.join, _TIMEOUT_S)
        assert process.exitcode == (0 if answer == "y" else 1)
        screen = os.read(keyboard, 65_536).decode()
    assert "expire 1 output, 3.4 MB, of job job-1? [y/N]" in screen
    assert ("expired: 1 output" in screen) is (answer == "y")
    assert await database.fetchval("""SELECT count(*) FROM job_outputs WHERE "expiresAt" IS NULL""") == left


async def test_ctrl_c_ends_an_expiry_that_has_to_wait_and_it_says_how_far_it_came(
    operator: Operator, records: PostgresRecords, database: Database
) -> None:
    await records.record(samples.output(samples.event(job_id="job-1")))
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with database.transaction():
        await database.execute("SELECT * FROM job_outputs FOR UPDATE")
        process = operator.begin("expire", "--job", "job-1", "--yes")
        async with asyncio.timeout(_TIMEOUT_S):
            while not await database.fetchval(waiting):  # noqa: ASYNC110 the server tells nobody
                await asyncio.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        said = await asyncio.to_thread(operator.end, process)
    assert (said.code, said.out) == (130, "")
    assert said.err.strip() == "expired before it was broken off: 0"
    assert operator.types("expire", "--job", "job-1", "--yes", "--json").json["expired"] == 1


def test_what_is_to_expire_is_named_once(operator: Operator) -> None:
    for words in ((), ("--user", "a", "--job", "b"), ("--output", "no-uuid")):
        assert operator.types("expire", *words, "--yes").code == 2
    assert operator.types("reconcile", "--user", "a/jobs").code == 2


def test_help_has_an_example_for_each_command(operator: Operator) -> None:
    of_letters = (("dead", "list"), ("dead", "show"), ("dead", "replay"), ("dead", "discard"))
    commands = (*of_letters, ("republish",), ("trace",), ("expire",), ("reconcile",))
    for words in commands:
        said = operator.types(*words, "--help")
        assert said.code == 0
        assert f"image-uploads {' '.join(words)} " in said.out.partition("Example")[2]
