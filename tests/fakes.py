"""Stand-ins for what the ports stand for; each passes the same tests in `tests/contract` as the real thing."""

import io
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import UUID

from fastcrc import crc64

from consumer.core.cleanup import BATCH, Place
from consumer.core.errors import BrokerError, DependencyError, PermanentError, TransientError
from consumer.core.ports import CleanupOutcome, Delivery, FileUse, Format, FoundFile, Image, ListedObject, Removal
from consumer.core.records import Cause, Failure, Output, Recorded, conflict_id
from schemas.events import CleanupTask, CloudEvent
from schemas.reasons import Reason

NEVER_EVENTS = (Reason.UNDECODABLE, Reason.INVALID_EVENT, Reason.UNSUPPORTED_EVENT, Reason.CONFLICTING_EVENT)


class Journal(list[str]):
    """What happened, in order; `trouble` is raised, once each, by the step that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: dict[str, Exception] = {}

    def step(self, name: str) -> None:
        if error := self.trouble.pop(name, None):
            raise error
        self.append(name)


@dataclass(eq=False)
class FakeDelivery:
    body: bytes = b""
    journal: Journal = field(default_factory=Journal)
    content_type: str | None = "application/cloudevents+json"
    message_id: str = "message"
    attempt: int = 1
    replays: int = 0
    is_returned: bool = False
    is_first: bool = True
    is_suspect: bool = False

    async def ack(self) -> None:
        self.journal.step("ack")


class FakeSource:
    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal if journal is not None else Journal()
        self.images: dict[str, bytes] = {}

    @asynccontextmanager
    async def open(self, url: str) -> AsyncGenerator[Image]:
        self.journal.step("fetch")
        if url not in self.images:
            raise TransientError(Reason.SOURCE_GONE, "not there", rungs=2)
        data = self.images[url]
        with io.BytesIO(data) as file:
            yield Image(file, len(data), crc64.xz(data))

    async def discard(self, url: str) -> None:
        self.journal.step("discard")
        if url.startswith("file:"):
            self.images.pop(url, None)


async def fake_inspect(image: Image) -> Format:
    if not image.file.read(3) == b"PNG":
        raise PermanentError(Reason.NOT_AN_IMAGE, "no PNG")
    return Format("image/png", "png", 2, 3)


class FakeStore:
    bucket = "fake-bucket"

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal if journal is not None else Journal()
        self.objects: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.modified_at: dict[str, datetime] = {}
        self.kept: set[str] = set()  # keys that it does not delete

    async def put(self, key: str, image: Image, *, content_type: str, event_id: str) -> None:
        self.journal.step("store")
        image.file.seek(0)
        data = image.file.read()
        if crc64.xz(data) != image.crc64:
            raise TransientError(Reason.STORAGE_UNAVAILABLE, "checksum differs")
        self.objects[key] = data
        self.modified_at[key] = datetime.now(UTC)
        self.headers[key] = {"Content-Type": content_type, "x-oss-meta-event-id": event_id}

    async def delete(self, key: str) -> None:
        self.journal.step("delete")
        self.objects.pop(key, None)

    async def delete_many(self, keys: Sequence[str]) -> set[str]:
        self.journal.step("delete many")
        assert len(keys) <= BATCH
        if any(key.startswith(("/", "\\")) for key in keys):
            raise PermanentError(Reason.STORAGE_REFUSED, "InvalidObjectName")
        gone = set(keys) - self.kept
        for key in gone:
            self.objects.pop(key, None)
        return gone

    async def listed(self, after: str) -> list[ListedObject]:
        self.journal.step("list")
        keys = sorted((key for key in self.objects if key.startswith("users/")), key=str.encode)
        behind = [key for key in keys if key.encode() > after.encode()]
        return [ListedObject(key, len(self.objects[key]), self.modified_at[key]) for key in behind[:BATCH]]

    def url(self, key: str) -> str:
        return f"https://cdn.test/{key}"

    def link(self, key: str) -> str:
        return f"{self.url(key)}?signed"


class FakeRecords:
    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal if journal is not None else Journal()
        self.outputs: dict[tuple[str, str], Output] = {}
        self.failures: dict[UUID, Failure] = {}
        self.resolved: set[UUID] = set()

    async def find(self, cause: Cause) -> Recorded:
        self.journal.step("find")
        output = self.outputs.get((cause.source or "", cause.event_id or ""))
        same = (cause.source, cause.event_id, cause.fingerprint, cause.replays)
        owners = [
            known.fingerprint
            for known in self.failures.values()
            if cause.source is not None
            and (known.event_source, known.event_id) == (cause.source, cause.event_id)
            and known.reason not in NEVER_EVENTS
        ]
        return Recorded(
            owner=output.fingerprint if output else (owners[0] if owners else None),
            output=output,
            failure=next(
                (
                    known
                    for known in self.failures.values()
                    if (known.event_source, known.event_id, known.fingerprint, known.replays) == same
                ),
                None,
            ),
        )

    async def record(self, output: Output) -> Output:
        self.journal.step("record")
        standing = self.outputs.setdefault((output.event_source, output.event_id), output)
        if standing is output:
            self.resolved |= {
                failure.id
                for failure in self.failures.values()
                if (failure.event_source, failure.event_id) == (output.event_source, output.event_id)
                and failure.fingerprint == output.fingerprint
            }
        return standing

    async def fail(self, failure: Failure) -> Failure | Output:
        self.journal.step("fail")
        output = self.outputs.get((failure.event_source or "", failure.event_id or ""))
        if output is not None and output.fingerprint == failure.fingerprint:
            return output
        standing = self.failures.setdefault(failure.id, failure)
        if standing.fingerprint != failure.fingerprint:
            own = replace(failure, id=conflict_id(failure.id, failure.fingerprint))
            standing = self.failures.setdefault(own.id, own)
        return standing


class FakeCleanupRecords:
    """What the cleanup asks the rows of `records`."""

    def __init__(self, journal: Journal | None = None, records: FakeRecords | None = None) -> None:
        self.journal = journal if journal is not None else Journal()
        self.records = records if records is not None else FakeRecords()
        self.deleted: dict[UUID, datetime] = {}
        self.notes: dict[CleanupTask, str] = {}

    async def expired(self, bucket: str, now: datetime, after: Place, limit: int) -> list[Output]:
        self.journal.step("expired")
        now = min(now, datetime.now(UTC))
        due = {
            (output.expires_at, output.id): replace(output, prompt=None, metadata=None)
            for output in self.records.outputs.values()
            if output.oss_bucket == bucket and output.expires_at is not None and output.expires_at <= now
        }
        place = (after.expires_at, after.output_id)
        return [due[key] for key in sorted(due) if key > place and key[1] not in self.deleted][:limit]

    async def mark_deleted(self, ids: Sequence[UUID]) -> None:
        self.journal.step("mark")
        for output_id in ids:
            self.deleted.setdefault(output_id, datetime.now(UTC))

    async def living(self, bucket: str, keys: Sequence[str]) -> set[str]:
        self.journal.step("living")
        return {
            output.oss_key
            for output in self.records.outputs.values()
            if output.oss_bucket == bucket and output.id not in self.deleted
        } & set(keys)

    async def uses_of(self, paths: Sequence[str]) -> list[FileUse]:
        self.journal.step("uses")
        outputs, failures = self.records.outputs.values(), self.records.failures.values()
        unresolved = {failure.source_file for failure in failures if failure.id not in self.records.resolved}
        return [
            FileUse(
                max((output.created_at for output in outputs if output.source_file == path), default=None),
                path in unresolved,
            )
            for path in paths
        ]

    async def note(self, task: CleanupTask) -> str | None:
        return self.notes.get(task)

    async def leave_note(self, task: CleanupTask, note: str | None) -> None:
        self.journal.step(f"note {task}")
        if note is None:
            self.notes.pop(task, None)
        else:
            self.notes[task] = note


class FakeTempDir:
    """`grown` files are written to after they were found, `stubborn` ones may not be removed."""

    def __init__(self, *files: FoundFile, journal: Journal | None = None) -> None:
        self.journal = journal if journal is not None else Journal()
        self.files = {file.path: file for file in files}
        self.grown: set[str] = set()
        self.stubborn: set[str] = set()
        self.batch = BATCH

    async def found(self) -> AsyncGenerator[list[FoundFile]]:
        files = iter(list(self.files.values()))
        while batch := list(islice(files, self.batch)):
            self.journal.step("found")
            yield batch

    async def remove(self, files: Sequence[FoundFile]) -> Removal:
        self.journal.step("remove")
        for path in self.grown & self.files.keys():
            self.files[path] = replace(self.files[path], changed_at=datetime.now(UTC))
        same = [file for file in files if self.files.get(file.path) == file]
        removed = [file for file in same if file.path not in self.stubborn]
        for file in removed:
            del self.files[file.path]
        return Removal(removed, [f"{file.path}: Permission denied" for file in same if file not in removed])


class FakeBacklog:
    def __init__(self) -> None:
        self.waiting = 0
        self.journal = Journal()

    async def is_empty(self) -> bool:
        self.journal.step("backlog")
        return self.waiting == 0


class FakeTrials:
    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal if journal is not None else Journal()
        self.begun: dict[UUID, str] = {}
        self.away = 0  # so many times it does not erase a note

    async def crashes(self, suspect: str) -> int:
        self.journal.step("crashes")
        return list(self.begun.values()).count(suspect)

    async def begin(self, suspect: str, trial: UUID) -> None:
        self.journal.step("begin")
        self.begun[trial] = suspect

    async def end(self, trial: UUID) -> None:
        if self.away:
            self.away -= 1
            raise DependencyError("database", Reason.DATABASE_UNAVAILABLE, "away")
        self.journal.step("end")
        self.begun.pop(trial, None)


class FakeBroker:
    def __init__(self, journal: Journal | None = None, queues: tuple[str, ...] | None = None) -> None:
        self.journal = journal if journal is not None else Journal()
        self.known = queues
        self.announced: list[CloudEvent[Any]] = []
        self.queues: dict[str, list[tuple[bytes, dict[str, str | int]]]] = {}

    async def announce(self, event: CloudEvent[Any]) -> None:
        self.journal.step(f"announce {event.type.rpartition('.')[2]}")
        self.announced.append(event)

    async def copy(self, delivery: Delivery, queue: str, headers: Mapping[str, str | int]) -> None:
        self.journal.step(f"copy to {queue}")
        if self.known is not None and queue not in self.known:
            raise BrokerError(f"no queue {queue}")
        self.queues.setdefault(queue, []).append((delivery.body, dict(headers)))


@dataclass(eq=False)
class FakeCleanupDelivery:
    body: bytes = b""
    journal: Journal = field(default_factory=Journal)
    is_tick: bool = True

    async def ack(self) -> None:
        self.journal.step("ack")


class FakeSchedule:
    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal if journal is not None else Journal()

    async def arm(self) -> None:
        self.journal.step("arm")


class FakeCleanupMeter:
    def __init__(self) -> None:
        self.removed: dict[CleanupTask, tuple[int, int]] = {}
        self.ended: list[CleanupOutcome] = []

    def cleaned(self, task: CleanupTask, count: int, size_bytes: int) -> None:
        self.removed[task] = (count, size_bytes)

    def cleanup_ended(self, outcome: CleanupOutcome) -> None:
        self.ended.append(outcome)
