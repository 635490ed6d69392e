"""The rows of both tables, read in the order of their numbers, which is the order in which they were committed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

import asyncpg

from consumer.adapters import postgres
from consumer.adapters.postgres import Pool, answer
from consumer.adapters.postgres_records import FAILURE_COLUMNS, OUTPUT_COLUMNS, failure_of_row, output_of_row
from consumer.core.records import Failure, Output

_PAGE: Final = 500
_QUERY_TIMEOUT_S: Final = 300  # to the first row of a user who has few among millions

_MEANT: Final = """number > $1 AND number <= $2
    AND ($3::timestamptz IS NULL OR "{time}" >= $3) AND ($4::timestamptz IS NULL OR "{time}" < $4)
    AND ($5::text IS NULL OR "jobId" = $5) AND ($6::text IS NULL OR "userId" = $6)"""
_OUTPUTS: Final = f"""
    FROM job_outputs WHERE "deletedAt" IS NULL AND ("expiresAt" IS NULL OR "expiresAt" > clock_timestamp())
    AND {_MEANT.format(time="createdAt")}"""
_FAILURES: Final = f"""
    FROM job_failures WHERE "resolvedAt" IS NULL AND "jobId" IS NOT NULL AND {_MEANT.format(time="failedAt")}"""
_OUTPUT_PAGE: Final = f"SELECT number, {OUTPUT_COLUMNS} {_OUTPUTS} ORDER BY number LIMIT $7"
_FAILURE_PAGE: Final = f"SELECT number, {FAILURE_COLUMNS} {_FAILURES} ORDER BY number LIMIT $7"
_COUNT: Final = f"SELECT (SELECT count(*) {_OUTPUTS}) + (SELECT count(*) {_FAILURES})"
_LAST: Final = """
    SELECT greatest((SELECT max(number) FROM job_outputs), (SELECT max(number) FROM job_failures), 0)"""
_OUTPUTS_OF: Final = f"""
    SELECT "deletedAt", {OUTPUT_COLUMNS} FROM job_outputs WHERE "jobId" = $1 ORDER BY number"""  # noqa: S608 the same
_FAILURES_OF: Final = f"""
    SELECT "resolvedAt", {FAILURE_COLUMNS} FROM job_failures WHERE "jobId" = $1 ORDER BY number"""  # noqa: S608 the same


@dataclass(frozen=True, slots=True)
class Span:
    """Which rows: of when, of whom; none means any."""

    since: datetime | None = None
    until: datetime | None = None
    job_id: str | None = None
    user_id: str | None = None


class PostgresHistory:
    """Reads what `PostgresRecords` has written, and changes nothing."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

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

    async def last_number(self) -> int:
        """The number of the latest row of both tables; 0 if there is none.

        Raises:
            DependencyError: as the other methods; the database does not answer.
        """
        last: int = await answer(self._pool.fetchval(_LAST))
        return last

    async def count(self, span: Span, last_number: int) -> int:
        """How many `outputs` and `failures` give together."""
        values = (0, last_number, span.since, span.until, span.job_id, span.user_id)
        count: int = await answer(self._pool.fetchval(_COUNT, *values, timeout=_QUERY_TIMEOUT_S))
        return count

    async def outputs(self, span: Span, last_number: int) -> AsyncIterator[tuple[int, Output]]:
        """Those that are neither deleted nor expired, with their numbers, up to that number."""
        async for row in self._pages(_OUTPUT_PAGE, span, last_number):
            yield row[0], output_of_row(row[1:])

    async def failures(self, span: Span, last_number: int) -> AsyncIterator[tuple[int, Failure]]:
        """Those that are not resolved and name a job, with their numbers, up to that number."""
        async for row in self._pages(_FAILURE_PAGE, span, last_number):
            yield row[0], failure_of_row(row[1:])

    async def outputs_of(self, job_id: str) -> list[tuple[Output, datetime | None]]:
        """Every output of the job, and when its object was deleted."""
        rows = await answer(self._pool.fetch(_OUTPUTS_OF, job_id))
        return [(output_of_row(row[1:]), row[0]) for row in rows]

    async def failures_of(self, job_id: str) -> list[tuple[Failure, datetime | None]]:
        """Every failure of the job, and when it was resolved."""
        rows = await answer(self._pool.fetch(_FAILURES_OF, job_id))
        return [(failure_of_row(row[1:]), row[0]) for row in rows]

    async def _pages(self, query: str, span: Span, last_number: int) -> AsyncIterator[asyncpg.Record]:
        values = (span.since, span.until, span.job_id, span.user_id, _PAGE)
        number = 0
        while True:
            rows = await answer(self._pool.fetch(query, number, last_number, *values, timeout=_QUERY_TIMEOUT_S))
            for row in rows:
                yield row
            if len(rows) < _PAGE:
                return
            number = rows[-1]["number"]
