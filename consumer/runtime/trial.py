"""Suspects: deliveries that came back so often that they may be what ends their workers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog

from consumer.core.errors import DependencyError
from consumer.core.outcome import Failed
from consumer.core.ports import Delivery, Trials
from consumer.core.records import Cause, fingerprint
from consumer.runtime.dispatch import Dispatched
from schemas.reasons import Reason

MOST_CRASHES: Final = 5  # three hit an innocent event once in 500 kills that were aimed at deliveries in work
_PAUSE_S: Final = 1.0

ReadApart: TypeAlias = Callable[[Delivery], Awaitable[Cause]]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trial:
    """Tells a message that kills its workers from those that were merely beside it, or beside a broker's restarts.

    A suspect is tried alone, and the try is noted before it and erased after it, whatever became of it. So a note that
    is still there is that of a worker that ended in the middle, with nothing else in work.
    """

    trials: Trials
    read_apart: ReadApart
    """Reads what a message names in another process."""

    @asynccontextmanager
    async def of(self, delivery: Delivery) -> AsyncIterator[Dispatched | None]:
        """The suspect is being tried; or is not, for it has ended too many workers, and this is what becomes of it."""
        suspect = fingerprint(str(delivery.replays).encode(), (delivery.message_id or "").encode(), delivery.body)
        crashes = await self._begin(suspect)
        try:
            yield await self._verdict(delivery) if crashes >= MOST_CRASHES else None
        finally:
            await self._end(suspect)

    async def _verdict(self, delivery: Delivery) -> Dispatched:
        detail = f"{MOST_CRASHES} workers ended while it was all that they had in work"
        return Dispatched(await self.read_apart(delivery), Failed(Reason.CRASH_LOOP, detail))

    async def _begin(self, suspect: str) -> int:
        while True:
            try:
                return await self.trials.begin(suspect)
            except DependencyError as error:
                _log.warning("a suspect waits for its trial", error=error.detail)
                await asyncio.sleep(_PAUSE_S)

    async def _end(self, suspect: str) -> None:
        try:
            await self.trials.end(suspect)
        except DependencyError as error:
            _log.warning("the note of a trial was not erased", error=error.detail)
