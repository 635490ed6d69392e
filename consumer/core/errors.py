"""Errors that name the blame: the message's, the world's, or our own neighbour's."""

from typing import Final, Literal, TypeAlias

from schemas.reasons import Reason

Dependency: TypeAlias = Literal["broker", "database", "storage", "temp_dir"]

ALL_RUNGS: Final = 1_000_000


class UploadError(Exception):
    """What stopped an event, with the reason that rows, events and metrics will carry."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class PermanentError(UploadError):
    """The message's fault: it would fail again, however often it is tried."""


class TransientError(UploadError):
    """The world's fault: it may succeed later if nobody does anything.

    `rungs` bounds how much of the ladder it gets: a URL that is gone deserves fewer tries than a server that is slow.
    `not_before_s` is how long the world asks us to stay away; 0 if it said nothing.
    """

    def __init__(self, reason: Reason, detail: str, *, rungs: int = ALL_RUNGS, not_before_s: float = 0) -> None:
        super().__init__(reason, detail)
        self.rungs = rungs
        self.not_before_s = not_before_s


class DependencyError(UploadError):
    """Our own neighbour's fault: every event would fare the same, so it costs this one no attempt."""

    def __init__(self, dependency: Dependency, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.dependency = dependency


class BusyError(UploadError):
    """Nobody's fault: others like it have the share of the work that they may have, so it costs this one no attempt.

    `not_before_s` is when they will have made room.
    """

    def __init__(self, reason: Reason, detail: str, *, not_before_s: float) -> None:
        super().__init__(reason, detail)
        self.not_before_s = not_before_s


class BrokerError(Exception):
    """The broker did not confirm what was published; it may have it all the same."""


class StalledError(Exception):
    """The broker keeps its messages to itself; another process may fare better."""


class StartError(Exception):
    """The program cannot start until somebody changes something; its text is one sentence that says what."""
