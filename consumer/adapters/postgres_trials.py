"""The rows of `job_trials`: see `Trials`."""

from typing import Final

from consumer.adapters.postgres import Pool, answer

_BEGIN: Final = """
    INSERT INTO job_trials AS trial (suspect, begun, "lastBegunAt") VALUES ($1, 1, now())
    ON CONFLICT (suspect) DO UPDATE SET begun = trial.begun + 1, "lastBegunAt" = now()
    RETURNING begun - 1"""
_END: Final = "DELETE FROM job_trials WHERE suspect = $1"


class PostgresTrials:
    """See `Trials`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(self, suspect: str) -> int:
        """A try is noted: see `Trials.begin`."""
        never_ended: int = await answer(self._pool.fetchval(_BEGIN, suspect))
        return never_ended

    async def end(self, suspect: str) -> None:
        """No note of the suspect is left: see `Trials.end`."""
        await answer(self._pool.execute(_END, suspect))
