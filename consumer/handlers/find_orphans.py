"""Objects that no row names are found, and left alone."""

from dataclasses import dataclass
from datetime import timedelta

from consumer.core.cleanup import BATCH, Run, Tally
from consumer.core.object_key import is_ours
from consumer.core.ports import CleanupRecords, ObjectStore


@dataclass(frozen=True, slots=True)
class FindOrphans:
    """The task `orphans`: counts and lists objects with keys of ours, older than a grace, without a living row."""

    store: ObjectStore
    records: CleanupRecords
    grace: timedelta

    async def __call__(self, run: Run, tally: Tally) -> None:
        """The whole bucket was looked through, or the next run goes on where the time was up."""
        note = await self.records.note("orphans")
        after = note or ""
        while objects := await self.store.listed(after):
            old = [found for found in objects if is_ours(found.key) and found.modified_at <= run.now - self.grace]
            living = await self.records.living(self.store.bucket, [found.key for found in old])
            for found in old:
                if found.key not in living:
                    tally.add(found.size_bytes, found.key)
            after = objects[-1].key
            if len(objects) < BATCH:
                break
            if run.is_over():
                tally.is_complete = False
                break
        if not run.is_rehearsal and (note is not None or not tally.is_complete):
            await self.records.leave_note("orphans", None if tally.is_complete else after)
