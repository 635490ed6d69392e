"""Outputs whose time has come lose their objects."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from consumer.core.announcements import expired
from consumer.core.cleanup import BATCH, Place, Run, Tally
from consumer.core.errors import PermanentError
from consumer.core.ports import Broker, CleanupRecords, ObjectStore
from consumer.core.records import Output

_AT_ONCE: Final = 100  # announcements; more would keep the uploads beside them waiting


@dataclass(frozen=True, slots=True)
class CleanExpired:
    """The task `expired`: object, announcement (confirmed), mark, in this order: a crash repeats and never skips.

    No row is ever removed, and none is marked whose object the store has not reported deleted.
    """

    store: ObjectStore
    records: CleanupRecords
    broker: Broker

    async def __call__(self, run: Run, tally: Tally) -> None:
        """Every output that was due is gone, or the time is up; a rehearsal counts them."""
        place = Place.read(note := await self.records.note("expired"))
        while outputs := await self.records.expired(self.store.bucket, run.now, place, BATCH):
            if run.is_over():
                tally.is_complete = False
                break
            for output in outputs if run.is_rehearsal else await self._remove(outputs, tally):
                tally.add(output.size_bytes)
            place = Place.of(outputs[-1])
        if not run.is_rehearsal and (note is not None or not tally.is_complete):
            await self.records.leave_note("expired", None if tally.is_complete else str(place))

    async def _remove(self, outputs: Sequence[Output], tally: Tally) -> list[Output]:
        """Those of the outputs whose objects are gone; they are announced and marked."""
        deleted = await self._delete([output.oss_key for output in outputs])
        gone = [output for output in outputs if output.oss_key in deleted]
        if len(gone) < len(outputs):
            left = next(output.oss_key for output in outputs if output.oss_key not in deleted)
            tally.complain(f"OSS did not delete {len(outputs) - len(gone)} objects, such as {left}")
        for first in range(0, len(gone), _AT_ONCE):
            await self._announce(gone[first : first + _AT_ONCE])
        await self.records.mark_deleted([output.id for output in gone])
        return gone

    async def _delete(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are gone; one that the store takes for none at all stands in nobody's way."""
        try:
            return await self.store.delete_many(keys)
        except PermanentError:
            if len(keys) == 1:
                return set()
            half = len(keys) // 2
            return await self._delete(keys[:half]) | await self._delete(keys[half:])

    async def _announce(self, outputs: Sequence[Output]) -> None:
        announcements = (self.broker.announce(expired(output)) for output in outputs)
        for error in await asyncio.gather(*announcements, return_exceptions=True):
            if error is not None:
                raise error  # as it is: within a group nobody would know it for what it is
