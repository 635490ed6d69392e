"""One run of the cleanup: what a task is told, and what it has come to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self
from uuid import UUID

from consumer.core.records import Output
from schemas.events import EPOCH, CleanupTaskResult

_FIRST_ID: Final = UUID(int=0)
BATCH: Final = 1000  # what OSS lists and deletes with one call
_MOST_KEYS: Final = 100
_MOST_ERRORS: Final = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where one has come to among the outputs that are due."""

    expires_at: datetime = EPOCH
    output_id: UUID = _FIRST_ID

    @classmethod
    def of(cls, output: Output) -> Self:
        """Right behind the output."""
        if output.expires_at is None:
            raise ValueError(f"output {output.id} never expires")
        return cls(output.expires_at, output.id)

    @classmethod
    def read(cls, note: str | None) -> Self:
        """The place that was written down; without a note, before all outputs."""
        if note is None:
            return cls()
        time, _, output_id = note.partition(" ")
        return cls(datetime.fromisoformat(time), UUID(output_id))

    def __str__(self) -> str:
        return f"{self.expires_at.isoformat()} {self.output_id}"


@dataclass(frozen=True, slots=True)
class Run:
    """What holds for one task of one run."""

    now: datetime
    """What is past, is past by this time."""
    is_rehearsal: bool
    """Whether nothing may be changed, not even what the next run goes on from."""
    is_over: Callable[[], bool]
    """Whether the time is up; asked between two batches."""


@dataclass(slots=True)
class Tally:
    """What a task has removed so far, or found, and what stood in its way."""

    count: int = 0
    size_bytes: int = 0
    skipped: str | None = None
    is_complete: bool = True
    keys: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, size_bytes: int, key: str | None = None) -> None:
        """One more, of that size; the first hundred keys are kept."""
        self.count += 1
        self.size_bytes += size_bytes
        if key is not None and len(self.keys) < _MOST_KEYS:
            self.keys.append(key)

    def complain(self, error: str) -> None:
        """One more thing went wrong; the first twenty are kept."""
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append(error)

    def break_off(self, error: str) -> None:
        """It went wrong, and not all was looked at."""
        self.complain(error)
        self.is_complete = False

    def result(self) -> CleanupTaskResult:
        """The same for others."""
        return CleanupTaskResult(
            count=self.count,
            bytes=self.size_bytes,
            skipped=self.skipped,
            complete=self.is_complete,
            keys=tuple(self.keys),
        )
