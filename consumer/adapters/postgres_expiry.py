"""Outputs whose time is to come at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self
from uuid import UUID

from consumer.adapters import postgres
from consumer.adapters.postgres import Pool, answer

_BATCH: Final = 5000
_QUERY_TIMEOUT_S: Final = 300  # a user may have millions

_LASTING: Final = """"deletedAt" IS NULL AND ("expiresAt" IS NULL OR "expiresAt" > $2)"""
_MEANT: Final = f"""
    number <= $1 AND {_LASTING}
    AND ($3::text IS NULL OR "userId" = $3) AND ($4::text IS NULL OR "jobId" = $4) AND ($5::uuid IS NULL OR id = $5)"""
_NOW: Final = "SELECT clock_timestamp(), coalesce(max(number), 0) FROM job_outputs"
_SUM: Final = f"""
    SELECT count(*), coalesce(sum("sizeBytes"), 0)::bigint FROM job_outputs WHERE {_MEANT}"""  # noqa: S608 constants
# The rows are locked in the order in which the cleanup locks them. A page begins behind the last one, or each would
# read past all that were done before it.
_EXPIRE: Final = f"""
    WITH page AS (
        SELECT id, number FROM job_outputs WHERE {_MEANT} AND number > $6 ORDER BY number LIMIT $7
    ), locked AS (
        SELECT job_outputs.id FROM job_outputs JOIN page USING (id) WHERE {_LASTING}
        ORDER BY job_outputs.id FOR NO KEY UPDATE OF job_outputs
    ), changed AS (
        UPDATE job_outputs SET "expiresAt" = $2 FROM locked WHERE job_outputs.id = locked.id RETURNING "sizeBytes"
    )
    SELECT count(*), coalesce(sum("sizeBytes"), 0)::bigint, (SELECT count(*) FROM page), (SELECT max(number) FROM page)
    FROM changed"""  # noqa: S608 only constants are put together


@dataclass(frozen=True, slots=True)
class Whose:
    """Which outputs: those of a user, of a job, or one; exactly one of them is named."""

    user_id: str | None = None
    job_id: str | None = None
    output_id: UUID | None = None

    def __str__(self) -> str:
        if self.user_id is not None:
            return f"of user {self.user_id}"
        return f"of job {self.job_id}" if self.job_id is not None else f"with the id {self.output_id}"


@dataclass(frozen=True, slots=True)
class Moment:
    """When their time comes; `last_number` is that of the latest output there was."""

    at: datetime
    last_number: int


@dataclass(frozen=True, slots=True)
class Sum:
    """How many outputs, and how large their objects are together."""

    count: int
    size_bytes: int


class PostgresExpiry:
    """Sets `"expiresAt"`, of nothing that is marked deleted or expired before, and never to a later time.

    Raises:
        DependencyError: the database does not answer; what was to be set may be set all the same.
    """

    def __init__(self, pool: Pool, batch: int = _BATCH) -> None:
        self._pool = pool
        self._batch = batch

    @classmethod
    @asynccontextmanager
    async def opened(cls, dsn: str) -> AsyncIterator[Self]:
        """The rows, over connections of its own.

        Raises:
            StartError: the server refuses us.
            DependencyError: it is away.
        """
        async with postgres.opened_pool(dsn) as pool:
            yield cls(pool)

    async def now(self) -> Moment:
        """The server's time."""
        (row,) = await answer(self._pool.fetch(_NOW))
        return Moment(*row)

    async def meant(self, whose: Whose, moment: Moment) -> Sum:
        """The outputs whose time would come."""
        (row,) = await answer(self._pool.fetch(_SUM, *_values(whose, moment), timeout=_QUERY_TIMEOUT_S))
        return Sum(*row)

    async def expire(self, whose: Whose, moment: Moment) -> AsyncIterator[Sum]:
        """Their time has come, for one batch after another; each that is given is committed."""
        after, found = 0, self._batch
        while found == self._batch:
            values = (*_values(whose, moment), after, self._batch)
            (row,) = await answer(self._pool.fetch(_EXPIRE, *values, timeout=_QUERY_TIMEOUT_S))
            count, size_bytes, found, after = row
            yield Sum(count, size_bytes)


def _values(whose: Whose, moment: Moment) -> tuple[object, ...]:
    return (moment.last_number, moment.at, whose.user_id, whose.job_id, whose.output_id)
