"""What the core asks of the outside, and what it may rely on.

A fake and its real thing pass the same tests in `tests/contract`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias
from uuid import UUID

from consumer.core.cleanup import Place
from consumer.core.records import Cause, Failure, Output, Recorded
from schemas.events import CleanupTask, CloudEvent

CleanupOutcome: TypeAlias = Literal["succeeded", "failed", "rehearsed", "refused"]
Stage: TypeAlias = Literal["fetch", "inspect", "store", "record", "announce"]


@dataclass(frozen=True, slots=True)
class Image:
    """A fetched image: a seekable file that is open as long as the source's context is, its size and its CRC-64/XZ."""

    file: BinaryIO
    size_bytes: int
    crc64: int


@dataclass(frozen=True, slots=True)
class Format:
    """What the bytes say they are."""

    content_type: str
    extension: str
    width: int
    height: int


class ImageSource(Protocol):
    """Where images come from."""

    def open(self, url: str) -> AbstractAsyncContextManager[Image]:
        """The whole image, within the byte limit; nothing of it is left behind when the context ends.

        Raises:
            UploadError: on entering, with the blame.
        """

    async def discard(self, url: str) -> None:
        """A `file:` URL's file is gone, whether or not it was there; other URLs stay as they are."""


class Inspector(Protocol):
    """Tells formats."""

    async def __call__(self, image: Image) -> Format:
        """Format and size of the image, from its header.

        Raises:
            PermanentError: it is none of the four formats, or larger than allowed.
        """


@dataclass(frozen=True, slots=True)
class ListedObject:
    """What a listing tells of an object."""

    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(Protocol):
    """The bucket."""

    bucket: str

    async def put(self, key: str, image: Image, *, content_type: str, event_id: str) -> None:
        """The object exists under `key`, byte-identical: the store's checksum equals the image's.

        Raises:
            UploadError: with the blame; the object may exist all the same.
        """

    async def delete(self, key: str) -> None:
        """There is no object under `key`, whether or not there was one.

        Raises:
            UploadError: with the blame; the object may be gone all the same.
        """

    async def delete_many(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys, at most a thousand, under which there is no object now; the others are still there.

        Raises:
            UploadError: with the blame; any of them may be gone all the same.
        """

    async def listed(self, after: str) -> list[ListedObject]:
        """The next thousand objects under `users/` behind that key, in the order of their keys' bytes; fewer: the last.

        Raises:
            UploadError: with the blame.
        """

    def url(self, key: str) -> str:
        """The plain public URL, as rows keep it."""

    def link(self, key: str) -> str:
        """A URL that works when it is sent: signed, where the bucket is private."""


class Records(Protocol):
    """The rows; each method that writes is one transaction."""

    async def find(self, cause: Cause) -> Recorded:
        """What the rows say of this event.

        Raises:
            DependencyError: the database does not answer.
        """

    async def record(self, output: Output) -> Output:
        """One row holds the event's source and id: this output, or the one that was there before.

        Failures of the same event are resolved by it.

        Raises:
            DependencyError: the database does not answer; the row may exist all the same.
        """

    async def fail(self, failure: Failure) -> Failure | Output:
        """The run has its failure row: this one, or the one that was there before; an output that exists wins.

        Raises:
            DependencyError: the database does not answer; the row may exist all the same.
        """


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file in TEMP_DIR.

    `changed_at` is when its content or its name changed last, or when a worker last read it for an event. `is_part`:
    it was never finished.
    """

    path: str
    size_bytes: int
    changed_at: datetime
    is_part: bool


@dataclass(frozen=True, slots=True)
class FileUse:
    """What the rows say of a path: when an output was made from it, and whether an unresolved failure names it."""

    stored_at: datetime | None = None
    is_wanted: bool = False


@dataclass(frozen=True, slots=True)
class Removal:
    """Which files were removed, and why others were not: a sentence for each; a file in neither had changed or gone."""

    removed: list[FoundFile]
    refusals: list[str]


class TempDir(Protocol):
    """The directory that generators share with us."""

    def found(self) -> AsyncGenerator[list[FoundFile]]:
        """Every regular file in it, in batches of at most a thousand; never through a symbolic link, never outside.

        Raises:
            DependencyError: the directory cannot be read, or its file system does not answer.
        """

    async def remove(self, files: Sequence[FoundFile]) -> Removal:
        """The files are gone; one that has changed since it was found is left alone, as is what we may not remove.

        Raises:
            DependencyError: the file system does not answer.
        """


class CleanupRecords(Protocol):
    """What a cleanup asks the rows, and what it writes into them.

    Raises:
        DependencyError: the database does not answer; what was to be written may be written all the same.
    """

    async def expired(self, bucket: str, now: datetime, after: Place, limit: int) -> list[Output]:
        """The next outputs of the bucket that are due by then and not marked deleted, in the order of their places.

        Due by the database's clock, too; without prompt and metadata, which may be long.
        """

    async def mark_deleted(self, ids: Sequence[UUID]) -> None:
        """The outputs are marked deleted; one that was marked before stays as it is."""

    async def living(self, bucket: str, keys: Sequence[str]) -> set[str]:
        """Those of the keys that belong to an output of the bucket that is not marked deleted."""

    async def uses_of(self, paths: Sequence[str]) -> list[FileUse]:
        """What the rows say of each path."""

    async def note(self, task: CleanupTask) -> str | None:
        """What the last run of the task left for the next."""

    async def leave_note(self, task: CleanupTask, note: str | None) -> None:
        """The next run of the task finds this, or nothing."""


class Backlog(Protocol):
    """What waits for a worker."""

    async def is_empty(self) -> bool:
        """Whether no event is ready in the work queue or waits on a rung.

        Raises:
            BrokerError: that is not known.
        """


class Schedule(Protocol):
    """The scheduled message, which the broker holds."""

    async def arm(self) -> None:
        """A tick is pending, or something waits whose end will arm it, unless the schedule is off.

        Raises:
            BrokerError: that is not certain.
        """


class CleanupDelivery(Protocol):
    """One receipt of a tick, or of somebody's request for a cleanup."""

    @property
    def body(self) -> bytes:
        """The message's bytes."""

    @property
    def is_tick(self) -> bool:
        """Whether the schedule sent it."""

    async def ack(self) -> None:
        """See `Delivery.ack`."""


class CleanupMeter(Protocol):
    """Counts what the cleanup does."""

    def cleaned(self, task: CleanupTask, count: int, size_bytes: int) -> None:
        """A task has removed so many, of that size together."""

    def cleanup_ended(self, outcome: CleanupOutcome) -> None:
        """A run has ended."""


class Delivery(Protocol):
    """One receipt of a message, ours until it is acked or its connection is lost."""

    @property
    def body(self) -> bytes:
        """The message's bytes."""

    @property
    def content_type(self) -> str | None:
        """What the publisher says they are."""

    @property
    def message_id(self) -> str:
        """The publisher's id of the message, or one that follows from its body; every copy has the same."""

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""

    @property
    def replays(self) -> int:
        """How often an operator has moved the message back."""

    @property
    def is_returned(self) -> bool:
        """Whether the queue gave it to somebody before, who did not settle it."""

    @property
    def is_first(self) -> bool:
        """Whether nobody can have had the message before, under this or another receipt."""

    @property
    def is_suspect(self) -> bool:
        """Whether it came back unsettled so often that it may be what ends its workers."""

    async def ack(self) -> None:
        """The broker forgets the message; a receipt that is no longer ours is left alone, for it comes again."""


class Broker(Protocol):
    """Publishes; each method returns when the broker has confirmed.

    Raises:
        BrokerError: it has not; it may have the message all the same.
    """

    async def announce(self, event: CloudEvent[Any]) -> None:
        """The event has gone to whoever listens, maybe nobody."""

    async def copy(self, delivery: Delivery, queue: str, headers: Mapping[str, str | int]) -> None:
        """The queue holds a copy of the message, with these headers over its own."""


class Trials(Protocol):
    """Notes of tries of suspects: a note that outlives its worker tells of a crash."""

    async def crashes(self, suspect: str) -> int:
        """How many tries of the last day have begun and never ended.

        Raises:
            DependencyError: the notes cannot be read.
        """

    async def begin(self, suspect: str, trial: UUID) -> None:
        """The try is noted, once, however often this is called for it.

        Raises:
            DependencyError: it may be noted all the same.
        """

    async def end(self, trial: UUID) -> None:
        """There is no note of the try, whether or not there was one.

        Raises:
            DependencyError: it may still be there.
        """


class Meter(Protocol):
    """Counts what happens."""

    def stage(self, stage: Stage) -> AbstractContextManager[object]:
        """The time spent inside counts towards the stage."""

    def received(self, delivery: Delivery) -> None:
        """A delivery is in work from now on."""

    def finished(self, delivery: Delivery) -> None:
        """It is no longer, whatever became of it."""

    def settled(self, outcome: str, reason: str) -> None:
        """A delivery was acked."""

    def stored(self, output: Output, age_s: float) -> None:
        """An image was stored `age_s` seconds after its event."""

    def attached(self, *, up: bool) -> None:
        """Whether the broker delivers to this worker."""

    def reconnected(self) -> None:
        """A connection to the broker was made anew after a loss."""
