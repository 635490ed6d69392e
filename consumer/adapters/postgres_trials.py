"""The rows of `job_trials`: see `Trials`."""

from typing import Final
from uuid import UUID

from consumer.adapters.postgres import Pool, answer

_CRASHES: Final = """
    SELECT count(*) FROM job_trials WHERE suspect = $1 AND "begunAt" > now() - interval '1 day'"""
_BEGIN: Final = """
    WITH forgotten AS (DELETE FROM job_trials WHERE "begunAt" < now() - interval '1 day')
    INSERT INTO job_trials (suspect, id, "begunAt") VALUES ($1, $2, now()) ON CONFLICT (id) DO NOTHING"""
_END: Final = "DELETE FROM job_trials WHERE id = $1"


class PostgresTrials:
    """See `Trials`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def crashes(self, suspect: str) -> int:
        """How many tries have begun and never ended: see `Trials.crashes`."""
        crashes: int = await answer(self._pool.fetchval(_CRASHES, suspect))
        return crashes

    async def begin(self, suspect: str, trial: UUID) -> None:
        """The try is noted: see `Trials.begin`."""
        await answer(self._pool.execute(_BEGIN, suspect, trial))

    async def end(self, trial: UUID) -> None:
        """There is no note of the try: see `Trials.end`."""
        await answer(self._pool.execute(_END, trial))
