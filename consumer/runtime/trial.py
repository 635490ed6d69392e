"""Suspects: deliveries that came back so often that they may be what ends their workers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from uuid import UUID, uuid4

import structlog

from consumer.core.errors import DependencyError
from consumer.core.outcome import Failed, Hold
from consumer.core.ports import Delivery, Trials
from consumer.core.records import Cause, fingerprint
from consumer.runtime.dispatch import Dispatched
from consumer.runtime.turns import Turns
from schemas.reasons import Reason

MOST_CRASHES: Final = 5
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0

ReadApart: TypeAlias = Callable[[Delivery], Awaitable[Cause]]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trial:
    """Tells a message that kills its workers from those that were merely beside it, or beside a broker's restarts.

    Each try of a suspect is noted before it and erased after it, whatever became of it; so a note that is still there
    is that of a worker that ended in the middle. Once there is one, the suspect is tried alone: what ends its worker
    then is the suspect itself. Between two tries it waits, a rung longer each time, so that a storm in which workers
    end for other reasons passes, and the others are worked off meanwhile.
    """

    trials: Trials
    read_apart: ReadApart
    """Reads what a message names in another process."""
    turns: Turns
    retry_delays_s: Sequence[int]
    _erasing: set["asyncio.Task[None]"] = field(default_factory=set)

    @asynccontextmanager
    async def of(self, delivery: Delivery) -> AsyncIterator[Dispatched | None]:
        """The suspect is being tried; or is not, and this is what becomes of it instead."""
        suspect = fingerprint(str(delivery.replays).encode(), delivery.message_id.encode(), delivery.body)
        try:
            crashes = await self.trials.crashes(suspect)
        except DependencyError as error:
            async with self.turns.beside():
                yield _held(delivery, error.reason, error.detail, self.retry_delays_s[0])
            return
        if crashes >= MOST_CRASHES or (crashes and delivery.is_returned):
            async with self.turns.beside():
                yield await self._consequence(delivery, crashes)
            return
        async with self.turns.alone() if crashes else self.turns.beside(), self._noted(suspect, delivery) as hold:
            yield hold

    @asynccontextmanager
    async def _noted(self, suspect: str, delivery: Delivery) -> AsyncIterator[Dispatched | None]:
        trial, hold = uuid4(), None
        try:
            try:
                await self.trials.begin(suspect, trial)
            except DependencyError as error:
                hold = _held(delivery, error.reason, error.detail, self.retry_delays_s[0])
            yield hold
        finally:
            try:
                await self.trials.end(trial)
            except DependencyError:
                # For as long as it takes, since a note that stays counts as a worker that ended; but beside the work.
                self._erasing.add(erasing := asyncio.create_task(self._erase(trial)))
                erasing.add_done_callback(self._erasing.discard)

    async def _erase(self, trial: UUID) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self.trials.end(trial)
            except DependencyError as error:
                _log.warning("the note of a trial is not erased yet", error=error.detail)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _consequence(self, delivery: Delivery, crashes: int) -> Dispatched:
        detail = f"{crashes} workers ended over it"
        if crashes < MOST_CRASHES:
            delays_s = self.retry_delays_s
            return _held(delivery, Reason.CRASH_LOOP, detail, delays_s[min(crashes, len(delays_s)) - 1])
        detail += ", all but the first while it was all that they had in work"
        return Dispatched(await self.read_apart(delivery), Failed(Reason.CRASH_LOOP, detail))


def _held(delivery: Delivery, reason: Reason, detail: str, delay_s: int) -> Dispatched:
    # Nothing is read of it here, for reading it may be what ends workers.
    cause = Cause(fingerprint(delivery.body), delivery.replays)
    return Dispatched(cause, Hold(reason, detail, delay_s))
