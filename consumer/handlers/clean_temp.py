"""Files that nobody will ask for are removed from TEMP_DIR."""

from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from consumer.core.cleanup import Run, Tally
from consumer.core.errors import BrokerError
from consumer.core.ports import Backlog, CleanupRecords, FileUse, FoundFile, TempDir

_PART_LIVES: Final = timedelta(hours=1)  # without a byte being added: whoever wrote it is no longer there
_BACKLOG: Final = "backlog"
_SECOND_LOOK: Final = "second look"


@dataclass(frozen=True, slots=True)
class CleanTemp:
    """The task `temp`: what a crash left half-written, what is stored, and what has become too old for any event.

    Too old means nothing while an event that names the file may still wait. So a file must have been too old already
    when a run before this one saw the work queue and the rungs empty, and they must be empty now: what was published
    by then was in work at most, or on its way from a rung to the queue, which one look may miss. The two looks are so
    far apart that what was in work then has opened its file, which keeps it young for as long as the try lasts.
    """

    directory: TempDir
    records: CleanupRecords
    backlog: Backlog
    max_age: timedelta
    apart: timedelta
    """How far the two looks are apart: at most the longest try."""

    async def __call__(self, run: Run, tally: Tally) -> None:
        """The files are removed, and counted; a rehearsal counts them.

        What the time cuts off is met again by the next run: what was removed before is not in its way.
        """
        is_empty, empty_at = await self._looks(run)
        async with aclosing(self.directory.found()) as batches:
            async for files in batches:
                if run.is_over():
                    tally.is_complete = False
                    return
                uses = await self.records.uses_of([file.path for file in files])
                doomed: list[FoundFile] = []
                for file, use in zip(files, uses, strict=True):
                    if self._is_done(file, use, run.now) or (not use.is_wanted and self._is_older(file, empty_at)):
                        doomed.append(file)
                    elif empty_at is None and not use.is_wanted and self._is_older(file, run.now):
                        tally.skipped = _SECOND_LOOK if is_empty else _BACKLOG
                await self._remove(doomed, run, tally)

    async def _remove(self, files: list[FoundFile], run: Run, tally: Tally) -> None:
        removed = files
        if files and not run.is_rehearsal:
            removal = await self.directory.remove(files)
            removed = removal.removed
            if removal.refusals:
                tally.complain(f"{len(removal.refusals)} files could not be removed, such as {removal.refusals[0]}")
        for file in removed:
            tally.add(file.size_bytes)

    async def _looks(self, run: Run) -> tuple[bool, datetime | None]:
        """Whether nothing waits now, and when an earlier run saw so, long enough ago, if no run has seen otherwise."""
        note = await self.records.note("temp")
        seen_at = datetime.fromisoformat(note) if note else None
        try:
            is_empty = await self.backlog.is_empty()
        except BrokerError:  # nobody knows what came and went meanwhile
            await self._leave_note(None, run)
            raise
        if seen_at is None or not is_empty:
            await self._leave_note(run.now.isoformat() if is_empty else None, run)
            return is_empty, None
        if seen_at > run.now - self.apart:
            return is_empty, None  # the look stays, for a later run
        await self._leave_note(run.now.isoformat(), run)
        return is_empty, seen_at

    async def _leave_note(self, note: str | None, run: Run) -> None:
        if not run.is_rehearsal:
            await self.records.leave_note("temp", note)

    def _is_older(self, file: FoundFile, than: datetime | None) -> bool:
        return than is not None and file.changed_at <= than - self.max_age

    def _is_done(self, file: FoundFile, use: FileUse, now: datetime) -> bool:
        """Whether it is of no use to anybody, whatever waits."""
        if file.is_part:
            return file.changed_at <= now - min(_PART_LIVES, self.max_age)
        # A file that is younger than the row is another one, of the same name.
        return use.stored_at is not None and file.changed_at < use.stored_at and not use.is_wanted
