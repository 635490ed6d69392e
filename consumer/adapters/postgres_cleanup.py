"""What the cleanup asks the rows, and what it writes into them: see `CleanupRecords`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from consumer.adapters.postgres import Pool, answer
from consumer.adapters.postgres_records import OUTPUT_COLUMNS, output_of_row
from consumer.core.cleanup import Place
from consumer.core.ports import FileUse
from consumer.core.records import Output
from schemas.events import CleanupTask

# What may be long stays where it is: a thousand prompts could be a gigabyte.
_COLUMNS: Final = OUTPUT_COLUMNS.replace("prompt, metadata", "NULL, NULL")

# The same conditions as those of the index, and its order, so that what is due is read and nothing else. By two clocks,
# since whatever goes for a wrong one is gone for ever.
_EXPIRED: Final = f"""
    SELECT {_COLUMNS} FROM job_outputs
    WHERE "ossBucket" = $1 AND "deletedAt" IS NULL AND "expiresAt" IS NOT NULL
        AND "expiresAt" <= least($2, now()) AND ("expiresAt", id) > ($3, $4)
    ORDER BY "expiresAt", id LIMIT $5"""  # noqa: S608 only constants are put together

# The rows are locked in one order, whoever marks them.
_MARK_DELETED: Final = """
    WITH marked AS (
        SELECT id FROM job_outputs WHERE id = ANY ($1) AND "deletedAt" IS NULL ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE job_outputs SET "deletedAt" = clock_timestamp() FROM marked WHERE job_outputs.id = marked.id"""
_LIVING: Final = """
    SELECT "ossKey" FROM job_outputs WHERE "ossKey" = ANY ($2) AND "ossBucket" = $1 AND "deletedAt" IS NULL"""
# Lateral, and aggregates, so that each path is one look-up by hash per table, however the planner sees the tables.
_USES: Final = """
    SELECT output.stored_at, failure.is_wanted FROM unnest($1::text[]) WITH ORDINALITY AS file (path, position)
    CROSS JOIN LATERAL (
        SELECT (array_agg("createdAt" ORDER BY "createdAt" DESC))[1] AS stored_at FROM job_outputs
        WHERE "sourceFile" = file.path
    ) AS output
    CROSS JOIN LATERAL (
        SELECT count(*) > 0 AS is_wanted FROM job_failures WHERE "sourceFile" = file.path AND "resolvedAt" IS NULL
    ) AS failure
    ORDER BY position"""
_NOTE: Final = "SELECT note FROM job_cleanup WHERE task = $1"
_LEAVE_NOTE: Final = """
    INSERT INTO job_cleanup (task, note) VALUES ($1, $2) ON CONFLICT (task) DO UPDATE SET note = excluded.note"""
_FORGET_NOTE: Final = "DELETE FROM job_cleanup WHERE task = $1"


class PostgresCleanup:
    """See `CleanupRecords`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def expired(self, bucket: str, now: datetime, after: Place, limit: int) -> list[Output]:
        """The next outputs that are due: see `CleanupRecords.expired`."""
        place = (after.expires_at, after.output_id)
        return [output_of_row(row) for row in await answer(self._pool.fetch(_EXPIRED, bucket, now, *place, limit))]

    async def mark_deleted(self, ids: Sequence[UUID]) -> None:
        """The outputs are marked deleted: see `CleanupRecords.mark_deleted`."""
        await answer(self._pool.execute(_MARK_DELETED, ids))

    async def living(self, bucket: str, keys: Sequence[str]) -> set[str]:
        """Those of the keys that belong to an output: see `CleanupRecords.living`."""
        rows = await answer(self._pool.fetch(_LIVING, bucket, keys))
        return {row["ossKey"] for row in rows}

    async def uses_of(self, paths: Sequence[str]) -> list[FileUse]:
        """What the rows say of each path: see `CleanupRecords.uses_of`."""
        # What is no UTF-8 can be in no row, and the server would refuse the whole question.
        asked = [path if _is_utf8(path) else None for path in paths]
        return [FileUse(*row) for row in await answer(self._pool.fetch(_USES, asked))]

    async def note(self, task: CleanupTask) -> str | None:
        """What the last run left for the next: see `CleanupRecords.note`."""
        note: str | None = await answer(self._pool.fetchval(_NOTE, task))
        return note

    async def leave_note(self, task: CleanupTask, note: str | None) -> None:
        """The next run finds this, or nothing: see `CleanupRecords.leave_note`."""
        if note is None:
            await answer(self._pool.execute(_FORGET_NOTE, task))
        else:
            await answer(self._pool.execute(_LEAVE_NOTE, task, note))


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
