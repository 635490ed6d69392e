"""Every event that the broker confirmed, and what the real services say became of it."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import asyncpg
import oss2
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from oss2.credentials import StaticCredentialsProvider

from consumer.adapters import postgres, rabbit
from schemas import topology
from schemas.cancellation import loss_is_no_cancellation
from schemas.reasons import Reason
from tests.e2e.watched_oss import ACCOUNT, WatchedOss
from tests.faults.mixture import Content, Name, Planned

_NEWS: Final = "ledger.news"
_COMPLETED: Final = "image.upload.completed"
_FAILED: Final = "image.upload.failed"
_EXPIRED: Final = "image.output.expired"
_OUTPUTS: Final = 'FROM job_outputs WHERE "userId" <> $1'

Row: TypeAlias = Mapping[str, Any]
Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Figures, and one sentence for each time that the promise was broken."""

    figures: dict[str, float]
    violations: list[str]

    def told(self, figure: str, value: float) -> "Verdict":
        """The same verdict with one figure more."""
        self.figures[figure] = value
        return self

    def check(self, kind: str, sentences: Iterable[str]) -> None:
        """It has a figure for this kind of violation, and a sentence for each."""
        broken = list(sentences)
        self.figures[kind] = len(broken)
        self.violations.extend(f"{kind}: {sentence}" for sentence in dict.fromkeys(broken))


class Ledger:
    """Knows what was confirmed, hears what is announced, and compares.

    Announcements wait for it in a queue of its own, so that none is missed while nobody looks.
    """

    def __init__(
        self, amqp_url: str, database_url: str, oss: WatchedOss, temp_dir: Path, retry_delays_s: Sequence[int]
    ) -> None:
        self._amqp_url = amqp_url
        self._database_url = database_url
        self._oss = oss
        self._temp_dir = temp_dir
        self._queues = [topology.WORK_QUEUE, *map(topology.rung_queue, retry_delays_s)]
        self._confirmed: dict[Name, Planned] = {}
        self._copies = 0
        self._connection: AbstractConnection | None = None
        self._session: Session | None = None
        self._completions: defaultdict[Name, list[str]] = defaultdict(list)
        self._failures: defaultdict[Name, list[str]] = defaultdict(list)
        self._dead: Counter[tuple[str | None, str]] = Counter()
        self.besides = ""
        """A user whose rows and objects are somebody else's business."""
        self.expirations: defaultdict[str, list[str]] = defaultdict(list)
        """The ids of the announcements that an output is gone, by output, as of the last comparison."""

    async def open(self) -> None:
        """From now on every announcement is kept; the exchange must exist."""
        async with self._channel() as channel:
            # Of quorum, since a classic one would be away with its node.
            news = await channel.declare_queue(_NEWS, durable=True, arguments={"x-queue-type": "quorum"})
            for routing_key in (_COMPLETED, _FAILED, _EXPIRED):
                await news.bind(topology.EXCHANGE, routing_key)

    def confirmed(self, planned: Planned) -> None:
        """The broker has the event, maybe once more."""
        self._confirmed[planned.name] = planned
        self._copies += 1

    async def waiting(self) -> int:
        """Messages in the work queue and on the rungs that nobody has in work."""
        async with self._channel() as channel:
            return sum([await _size(channel, queue) for queue in self._queues])

    async def _left(self) -> int:
        # Asked for a message: a count alone may be 0 because the queue is slow.
        async with self._channel() as channel:
            gotten = [await (await channel.get_queue(queue)).get(fail=False) for queue in self._queues]
            return sum(1 + (message.message_count or 0) for message in gotten if message)

    async def stored(self) -> int:
        """Rows of outputs that there are."""
        async with self._database() as database:
            return int(await database.fetchval(f"SELECT count(*) {_OUTPUTS}", self.besides))

    async def decided(self) -> int:
        """Rows that there are."""
        async with self._database() as database:
            rows = await database.fetchval(
                f"SELECT (SELECT count(*) {_OUTPUTS}) + (SELECT count(*) FROM job_failures)", self.besides
            )
        return int(rows)

    @property
    def expected(self) -> int:
        """Rows that there must be in the end."""
        return len(self._confirmed)

    async def compare(self) -> Verdict:
        """What the services say, against what was promised."""
        await self._hear()
        async with self._database() as database:
            outputs = [dict(row) for row in await database.fetch(f"SELECT * {_OUTPUTS}", self.besides)]
            failures = [dict(row) for row in await database.fetch("SELECT * FROM job_failures")]
        objects = await asyncio.to_thread(self._objects)
        verdict = Verdict(
            {
                "events": len(self._confirmed),
                "copies": self._copies,
                "stored": len(outputs),
                "failed": len(failures),
                "completions": self.completions.total(),
                "ids per completion": max((len(set(_ids(heard))) for heard in self._completions.values()), default=0),
                "dead letters": self._dead.total(),
            },
            [],
        )
        found = _Comparison(self._confirmed, outputs, failures, objects)
        left = await self._left()
        verdict.check("lost", found.lost())
        verdict.check("wrong ends", found.ended_otherwise())
        verdict.check("duplicate rows", found.doubled())
        verdict.check("wrong rows", found.wrong_rows())
        verdict.check("rows without object", found.rows_without_object())
        verdict.check("objects without row", found.objects_without_row())
        verdict.check("rows without completion", _unheard(outputs, self._completions))
        verdict.check("wrong completions", self._wrong_completions(outputs))
        verdict.check("failures without event", _unheard([row for row in failures if row["jobId"]], self._failures))
        verdict.check("wrong failed events", self._wrong_failed_events(failures))
        verdict.check("wrong dead letters", self._wrong_dead_letters())
        verdict.check("temp files left", self._wrong_temp_files())
        verdict.check("messages left", [f"{left} are in the work queue and on the rungs"] * left)
        return verdict

    @property
    def completions(self) -> Counter[Name]:
        """How often each completion was heard, as of the last comparison."""
        return Counter({name: len(heard) for name, heard in self._completions.items()})

    async def _hear(self) -> None:
        async with self._channel() as channel:
            async for message in _drained(channel, _NEWS):
                event = json.loads(message.body)
                data = event["data"]
                if message.routing_key == _EXPIRED:
                    self.expirations[data["outputId"]].append(event["id"])
                    continue
                heard = self._completions if message.routing_key == _COMPLETED else self._failures
                heard[data["causeSource"], data["causeId"]].append(message.body.decode())
            async for message in _drained(channel, topology.DEAD_QUEUE):
                self._dead[message.message_id, str(message.headers.get(topology.X_REASON))] += 1

    def _objects(self) -> dict[str, Content]:
        credentials = StaticCredentialsProvider(ACCOUNT.access_key_id, ACCOUNT.access_key_secret)
        bucket = oss2.Bucket(
            oss2.ProviderAuthV4(credentials), self._oss.url, self._oss.bucket, region="cn-hangzhou", enable_crc=False
        )
        listed = oss2.ObjectIteratorV2(bucket, prefix="users/", max_keys=1000)
        # The checksum that it tells is of the bytes that it has.
        return {
            each.key: Content(each.size, each.etag.strip('"'), "")
            for each in listed
            if not each.key.startswith(("users/.", f"users/{self.besides}/"))  # a worker's probe
        }

    def _wrong_completions(self, outputs: Iterable[Row]) -> Iterator[str]:
        rows = {_name(row): row for row in outputs}
        for name, heard in self._completions.items():
            if name not in rows:
                yield f"{name} was announced and has no row"
                continue
            if len(set(_ids(heard))) > 1:
                yield f"{name} has completions of several ids"
            for data in (json.loads(body)["data"] for body in set(heard)):
                if _told_of_output(data) != _told_of_output(_as_told(rows[name])):
                    yield f"the completion of {name} is not as its row: {data} is not {rows[name]}"

    def _wrong_failed_events(self, failures: Iterable[Row]) -> Iterator[str]:
        rows = {_name(row): row for row in failures}
        for name, heard in self._failures.items():
            row = rows.get(name)
            for event in map(json.loads, set(heard)):
                if row is None or (event["id"], event["data"]["reason"]) != (str(row["id"]), row["reason"]):
                    yield f"the failed event of {name} is not as its row: {event} is not {row}"

    def _wrong_dead_letters(self) -> Iterator[str]:
        due: set[tuple[str | None, str]] = {
            (planned.message_id, str(planned.fate))
            for planned in self._confirmed.values()
            if isinstance(planned.fate, Reason)
        }
        told = set(self._dead)
        for letter in due - told:
            yield f"{letter}: there is no such dead letter"
        for letter in told - due:
            yield f"{letter}: such a dead letter must not be"

    def _wrong_temp_files(self) -> list[str]:
        kept = {
            unquote(urlsplit(planned.event.data.image_url).path)
            for planned in self._confirmed.values()
            if planned.event and isinstance(planned.fate, Reason)  # whoever replays it needs its file
        }
        return [f"{path.name} is left in TEMP_DIR" for path in self._temp_dir.iterdir() if str(path) not in kept]

    async def close(self) -> None:
        """Its connections are closed."""
        connection, self._connection = self._connection, None
        await rabbit.close(connection)
        session, self._session = self._session, None
        if session is not None:
            session.terminate()

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        try:
            if self._connection is None:
                self._connection = await rabbit.connect(self._amqp_url, "ledger")
            with loss_is_no_cancellation():
                async with self._connection.channel() as channel:
                    yield channel
        except rabbit.LOST:
            await self.close()
            raise

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[Session]:
        try:
            if self._session is None:
                self._session = await asyncpg.connect(self._database_url)
            yield self._session
        except postgres.LOST:
            await self.close()
            raise


class _Comparison:
    """Rows and objects, beside what was confirmed."""

    def __init__(
        self,
        confirmed: Mapping[Name, Planned],
        outputs: Sequence[Row],
        failures: Sequence[Row],
        objects: Mapping[str, Content],
    ) -> None:
        self._confirmed = confirmed
        self._outputs = outputs
        self._failures = failures
        self._objects = objects
        self._stored = {_name(row): row for row in outputs}
        self._failed = {_name(row): row for row in failures}

    def lost(self) -> list[str]:
        return [
            f"{name} is in no table"
            for name in self._confirmed
            if name not in self._stored and name not in self._failed
        ]

    def ended_otherwise(self) -> Iterator[str]:
        for name, planned in self._confirmed.items():
            output, failure = self._stored.get(name), self._failed.get(name)
            match planned.fate:
                case Reason() if output:
                    yield f"{name} is stored, and should have failed as {planned.fate}"
                case Reason() if failure and failure["reason"] != planned.fate:
                    yield f"{name} failed as {failure['reason']} and not as {planned.fate}: {failure['detail']}"
                case Content() if failure:
                    yield f"{name} failed as {failure['reason']}, and should be stored: {failure['detail']}"
        for name in {*self._stored, *self._failed} - self._confirmed.keys():
            yield f"{name} has a row, and nobody published it"

    def doubled(self) -> list[str]:
        counts = [Counter(map(_name, rows)) for rows in (self._outputs, self._failures)]
        return [f"{name} has {rows} rows" for count in counts for name, rows in count.items() if rows > 1]

    def wrong_rows(self) -> Iterator[str]:
        for name, row in self._stored.items():
            planned = self._confirmed.get(name)
            if planned is None or planned.event is None or not isinstance(planned.fate, Content):
                continue
            data = planned.event.data
            due = (data.job_id, data.user_id, data.prompt, planned.fate.crc64, planned.fate.size_bytes)
            if due != (row["jobId"], row["userId"], row["prompt"], row["crc64"], row["sizeBytes"]):
                yield f"the row of {name} is not of its event: {row}"

    def rows_without_object(self) -> Iterator[str]:
        for name, row in self._stored.items():
            planned, found = self._confirmed.get(name), self._objects.get(row["ossKey"])
            if found is None:
                yield f"{row['ossKey']} is not there"
            elif planned is None or not isinstance(planned.fate, Content) or planned.fate.md5 != found.md5:
                yield f"{row['ossKey']} has other bytes than its source"

    def objects_without_row(self) -> list[str]:
        keys = {row["ossKey"] for row in self._outputs}
        return [f"{key} has no row" for key in self._objects if key not in keys]


def _unheard(rows: Iterable[Row], heard: Mapping[Name, Sequence[str]]) -> list[str]:
    return [f"{_name(row)} was never announced" for row in rows if not heard.get(_name(row))]


def _name(row: Row) -> Name:
    return (None, row["eventFingerprint"]) if row["eventId"] is None else (row["eventSource"], row["eventId"])


def _ids(heard: Iterable[str]) -> Iterator[str]:
    return (json.loads(body)["id"] for body in heard)


_AS_IN_THE_ROW: Final = ("jobId", "userId", "ossKey", "contentType", "sizeBytes", "width", "height", "crc64", "prompt")


def _as_told(row: Row) -> Row:
    return {
        **row,
        "outputId": str(row["id"]),
        "imageUrl": row["url"],
        "metadata": json.loads(row["metadata"]),
        "createdAt": row["createdAt"].isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }


def _told_of_output(data: Row) -> list[Any]:
    return [data[name] for name in (*_AS_IN_THE_ROW, "outputId", "imageUrl", "metadata", "createdAt")]


async def _size(channel: AbstractChannel, queue: str) -> int:
    declared = await channel.declare_queue(queue, passive=True)
    return declared.declaration_result.message_count or 0


async def _drained(channel: AbstractChannel, name: str) -> AsyncIterator[AbstractIncomingMessage]:
    """Every message that is in the queue, which is then forgotten there."""
    waiting = await _size(channel, name)
    queue = await channel.get_queue(name)
    came: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await channel.set_qos(prefetch_count=1000)
    tag = await queue.consume(came.put)
    for _ in range(waiting):
        yield (message := await came.get())
        await message.ack()
    await queue.cancel(tag)
    # A slow quorum queue may have told of none.
    while (late := await queue.get(fail=False)) is not None:
        yield late
        await late.ack()
