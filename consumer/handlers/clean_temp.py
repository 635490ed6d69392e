"""Files that nobody will ask for are removed from TEMP_DIR."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from consumer.core.cleanup import Run, Tally
from consumer.core.ports import Backlog, CleanupRecords, FileUse, FoundFile, TempDir

_EMPTY: Final = "there was no backlog"
_PART_LIVES: Final = timedelta(hours=1)  # without a byte being added: whoever wrote it is no longer there
_LEFT: Final = "backlog"


@dataclass(frozen=True, slots=True)
class CleanTemp:
    """The task `temp`: what a crash left half-written, what is stored, and what has become too old for any event.

    Too old means nothing while an event that names the file may still wait: the work queue and the rungs must have
    been empty at the last run as well, since one look may miss an event that is on its way from a rung to the queue.
    """

    directory: TempDir
    records: CleanupRecords
    backlog: Backlog
    max_age: timedelta

    async def __call__(self, run: Run, tally: Tally) -> None:
        """The files are removed, and counted; a rehearsal counts them."""
        is_quiet = await self._is_quiet(run)
        async for files in self.directory.found():
            if run.is_over():
                tally.is_complete = False
                return
            uses = await self.records.uses_of([file.path for file in files])
            done = [file for file, use in zip(files, uses, strict=True) if self._is_done(file, use, run.now)]
            old = [
                file
                for file, use in zip(files, uses, strict=True)
                if file not in done and file.changed_at <= run.now - self.max_age and not use.is_wanted
            ]
            if old and not is_quiet:
                tally.skipped = _LEFT
            doomed = done + old * is_quiet
            removed = doomed if run.is_rehearsal else await self.directory.remove(doomed)
            for file in removed:
                tally.add(file.size_bytes)
            if len(removed) < len(doomed):
                tally.complain(f"{len(doomed) - len(removed)} files could not be removed")

    async def _is_quiet(self, run: Run) -> bool:
        was_empty = await self.records.note("temp") == _EMPTY
        is_empty = await self.backlog.is_empty()
        if not run.is_rehearsal:
            await self.records.leave_note("temp", _EMPTY if is_empty else None)
        return was_empty and is_empty

    def _is_done(self, file: FoundFile, use: FileUse, now: datetime) -> bool:
        """Whether it is of no use to anybody, whatever waits."""
        if file.is_part:
            return file.changed_at <= now - min(_PART_LIVES, self.max_age)
        # A file that is younger than the row is another one, of the same name.
        return use.stored_at is not None and file.changed_at < use.stored_at and not use.is_wanted
