"""What becomes of a delivery, as a value: deciding it is one function, making it true is another."""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from consumer.core.records import Cause, Output, Recorded
from schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class Stored:
    """The image is an object and a row."""

    label: ClassVar[str] = "stored"
    reason: ClassVar[str] = ""
    output: Output


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The event was stored before; its completion is announced again."""

    label: ClassVar[str] = "duplicate"
    reason: ClassVar[str] = ""
    output: Output


@dataclass(frozen=True, slots=True)
class Hold:
    """A neighbour of ours is in trouble: try again in `delay_s` seconds, as the same attempt."""

    label: ClassVar[str] = "held"
    reason: Reason
    detail: str
    delay_s: int


@dataclass(frozen=True, slots=True)
class Retry:
    """The world is in trouble: try again in `delay_s` seconds, as the next attempt."""

    label: ClassVar[str] = "retried"
    reason: Reason
    detail: str
    delay_s: int


@dataclass(frozen=True, slots=True)
class Failed:
    """No further try would help, or none is left."""

    label: ClassVar[str] = "failed"
    reason: Reason
    detail: str


Outcome: TypeAlias = Stored | Duplicate | Hold | Retry | Failed


def decided(cause: Cause, recorded: Recorded) -> Duplicate | Failed | None:
    """What the rows have decided already, if anything: a redelivery finishes that and does no work again."""
    if recorded.owner is not None and recorded.owner != cause.fingerprint:
        return Failed(
            Reason.CONFLICTING_EVENT, "another event with this source and id, but other data, came before this one"
        )
    if recorded.output is not None:
        return Duplicate(recorded.output)
    if recorded.failure is not None:
        return Failed(recorded.failure.reason, recorded.failure.detail)
    return None
