"""Suspects: deliveries that came back so often that they may be what ends their workers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias
from uuid import uuid4

import structlog

from consumer.core.errors import DependencyError
from consumer.core.outcome import Failed, Hold
from consumer.core.ports import Delivery, Trials
from consumer.core.records import Cause, fingerprint
from consumer.runtime.dispatch import Dispatched
from consumer.runtime.turns import Turns
from schemas.reasons import Reason

MOST_CRASHES: Final = 5  # three hit an innocent event once in 500 kills that were aimed at deliveries in work

ReadApart: TypeAlias = Callable[[Delivery], Awaitable[Cause]]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trial:
    """Tells a message that kills its workers from those that were merely beside it, or beside a broker's restarts.

    Each try of a suspect is noted before it and erased after it, whatever became of it; so a note that is still there
    is that of a worker that ended in the middle. Once there is one, the suspect is tried alone: what ends its worker
    then is the suspect itself.
    """

    trials: Trials
    read_apart: ReadApart
    """Reads what a message names in another process."""
    turns: Turns
    hold_s: int

    @asynccontextmanager
    async def of(self, delivery: Delivery) -> AsyncIterator[Dispatched | None]:
        """The suspect is being tried; or is not, and this is what becomes of it: it has ended too many workers, or
        nothing can be noted of it now.
        """  # noqa: D205 one sentence
        suspect = fingerprint(str(delivery.replays).encode(), (delivery.message_id or "").encode(), delivery.body)
        try:
            crashes = await self.trials.crashes(suspect)
        except DependencyError as error:
            async with self.turns.beside():
                yield self._held(delivery, error)
            return
        async with self.turns.alone() if crashes else self.turns.beside():
            if crashes >= MOST_CRASHES:
                yield await self._verdict(delivery)
            else:
                async with self._noted(suspect, delivery) as hold:
                    yield hold

    @asynccontextmanager
    async def _noted(self, suspect: str, delivery: Delivery) -> AsyncIterator[Dispatched | None]:
        trial, hold = uuid4(), None
        try:
            try:
                await self.trials.begin(suspect, trial)
            except DependencyError as error:
                hold = self._held(delivery, error)
            yield hold
        finally:
            try:
                await self.trials.end(trial)
            except DependencyError as error:
                _log.warning("the note of a trial was not erased", error=error.detail)

    def _held(self, delivery: Delivery, error: DependencyError) -> Dispatched:
        cause = Cause(fingerprint(delivery.body), delivery.replays)
        return Dispatched(cause, Hold(error.reason, error.detail, self.hold_s))

    async def _verdict(self, delivery: Delivery) -> Dispatched:
        detail = f"{MOST_CRASHES} workers ended over it, the last of them while it was all that they had in work"
        return Dispatched(await self.read_apart(delivery), Failed(Reason.CRASH_LOOP, detail))
