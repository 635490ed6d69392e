"""The rows of `job_outputs` and `job_failures`: see `Records`."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any, Final
from uuid import UUID, uuid4

from consumer.adapters.grouping import Grouped
from consumer.adapters.postgres import BAD_DATA, Asked, Connection, Pool, answer, transaction
from consumer.core.records import Cause, Failure, Output, Recorded, conflict_id
from schemas.reasons import Reason

_NUMBERING_LOCK: Final = 0x696D6702  # held from drawing a number to the commit, so that numbers follow commits

# Columns in the order of the dataclasses' fields.
OUTPUT_COLUMNS: Final = """id, "jobId", "userId", "eventSource", "eventId", "eventFingerprint", "ossBucket", "ossKey",
    url, "contentType", "sizeBytes", width, height, crc64, prompt, metadata, "createdAt", "expiresAt", "sourceFile\""""
FAILURE_COLUMNS: Final = """id, "eventSource", "eventId", "eventFingerprint", "jobId", "userId", "imageUrl",
    reason, detail, attempts, replays, "failedAt", "sourceFile\""""

# What was never a valid event does not own the source and id that it may have named.
_NEVER_EVENTS: Final = [
    Reason.UNDECODABLE,
    Reason.INVALID_EVENT,
    Reason.UNSUPPORTED_EVENT,
    Reason.CONFLICTING_EVENT,
]

# Lateral, so that each cause is one index look-up per table, however the planner sees the tables. The aggregate keeps
# it from walking job_failures in number order.
_FIND: Final = """
    SELECT cause.position, stored.id AS output_id, failed.id AS failure_id,
        coalesce(stored."eventFingerprint", first.fingerprint) AS owner
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[])
        WITH ORDINALITY AS cause (source, id, fingerprint, replays, position)
    LEFT JOIN LATERAL (
        SELECT id, "eventFingerprint" FROM job_outputs
        WHERE "eventSource" = cause.source AND "eventId" = cause.id LIMIT 1
    ) AS stored ON true
    LEFT JOIN LATERAL (
        SELECT id FROM job_failures
        WHERE "eventSource" = cause.source AND "eventId" = cause.id
            AND "eventFingerprint" = cause.fingerprint AND replays = cause.replays LIMIT 1
    ) AS failed ON true
    CROSS JOIN LATERAL (
        SELECT (array_agg("eventFingerprint" ORDER BY number))[1] AS fingerprint FROM job_failures
        WHERE "eventSource" = cause.source AND "eventId" = cause.id AND reason <> ALL ($5::text[])
    ) AS first
    WHERE stored.id IS NOT NULL OR failed.id IS NOT NULL OR first.fingerprint IS NOT NULL"""

# The conflict target is named, so that a clash on another unique column is an error and not silence. The numbering
# lock keeps two workers' groups from waiting for each other, in whatever order their rows are.
_RECORD: Final = f"""
    WITH inserted AS (
        INSERT INTO job_outputs ({OUTPUT_COLUMNS})
        SELECT id, job_id, user_id, source, event_id, fingerprint, bucket, key, url, content_type, size_bytes, width,
            height, crc64, prompt, metadata::jsonb, created_at, expires_at, source_file
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::bigint[], $12::int[], $13::int[], $14::text[], $15::text[], $16::text[],
            $17::timestamptz[], $18::timestamptz[], $19::text[]) AS output (id, job_id, user_id, source, event_id,
            fingerprint, bucket, key, url, content_type, size_bytes, width, height, crc64, prompt, metadata, created_at,
            expires_at, source_file)
        ON CONFLICT ("eventSource", "eventId") DO NOTHING
        RETURNING "eventSource", "eventId", "eventFingerprint", "ossKey", "createdAt"
    ), resolved AS (
        UPDATE job_failures SET "resolvedAt" = clock_timestamp() FROM inserted
        WHERE job_failures."eventSource" = inserted."eventSource" AND job_failures."eventId" = inserted."eventId"
            AND job_failures."eventFingerprint" = inserted."eventFingerprint"
    )
    SELECT "ossKey", "createdAt" FROM inserted"""  # noqa: S608 only constants of this file are put together

_FAIL: Final = f"""
    INSERT INTO job_failures ({FAILURE_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (id) DO NOTHING"""  # noqa: S608 only constants of this file are put together

_OUTPUT_OF: Final = f"""
    SELECT {OUTPUT_COLUMNS} FROM job_outputs WHERE "eventSource" = $1 AND "eventId" = $2"""  # noqa: S608 the same
_FAILURE_OF: Final = f"SELECT {FAILURE_COLUMNS} FROM job_failures WHERE id = $1"  # noqa: S608 the same

_METADATA: Final = [field.name for field in fields(Output)].index("metadata")
_output_values = attrgetter(*(field.name for field in fields(Output)))
_failure_values = attrgetter(*(field.name for field in fields(Failure)))


# One row, and none, so that every table says whether it would take one.
_PROBE: Final = f"""
    WITH outputs AS (INSERT INTO job_outputs SELECT * FROM job_outputs WHERE false),
        trials AS (INSERT INTO job_trials SELECT * FROM job_trials WHERE false),
        notes AS (INSERT INTO job_cleanup SELECT * FROM job_cleanup WHERE false)
    INSERT INTO job_failures ({FAILURE_COLUMNS})
    VALUES ($1, NULL, NULL, '', NULL, NULL, NULL, 'unexpected', 'a probe', 1, 0, now(), NULL)"""  # noqa: S608 the same


class _RehearsedError(Exception):
    """Rolls a transaction back that did all it should."""


class PostgresRecords:
    """Look-ups and outputs of deliveries that are in work at the same time share their statements."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._find_one = Grouped(self._find, splits_on=BAD_DATA)
        self._record_one = Grouped(self._record, splits_on=BAD_DATA)

    async def find(self, cause: Cause) -> Recorded:
        """What the rows say of this event: see `Records.find`."""
        return await self._find_one(cause)

    async def record(self, output: Output) -> Output:
        """One row holds the event's source and id: see `Records.record`."""
        return await self._record_one(output)

    async def fail(self, failure: Failure) -> Failure | Output:
        """The run has its failure row: see `Records.fail`."""
        async with transaction(self._pool) as connection:
            await _take_numbering_lock(connection)
            output = await _output_of(connection, failure.event_source, failure.event_id)
            if output is not None and output.fingerprint == failure.fingerprint:
                return output
            standing = await _insert(connection, failure)
            if standing.fingerprint != failure.fingerprint:
                # Another event has failed under this name, so this one's row needs an id of its own.
                standing = await _insert(connection, replace(failure, id=conflict_id(failure.id, failure.fingerprint)))
        return standing

    async def probe(self) -> None:
        """The tables take rows; they have none more than before.

        Raises:
            DependencyError: they do not.
        """
        with suppress(_RehearsedError):
            async with transaction(self._pool) as connection:
                await connection.execute(_PROBE, uuid4())
                raise _RehearsedError

    async def _find(self, causes: Sequence[Cause]) -> list[Recorded]:
        found = [Recorded()] * len(causes)
        rows = await answer(
            self._pool.fetch(
                _FIND,
                [cause.source for cause in causes],
                [cause.event_id for cause in causes],
                [cause.fingerprint for cause in causes],
                [cause.replays for cause in causes],
                _NEVER_EVENTS,
            )
        )
        for row in rows:
            cause = causes[row["position"] - 1]
            found[row["position"] - 1] = Recorded(
                owner=row["owner"],
                output=await answer(_output_of(self._pool, cause.source, cause.event_id)) if row["output_id"] else None,
                failure=await self._failure_of(row["failure_id"]) if row["failure_id"] else None,
            )
        return found

    async def _failure_of(self, failure_id: UUID) -> Failure | None:
        row = await answer(self._pool.fetchrow(_FAILURE_OF, failure_id))
        return failure_of_row(row) if row else None

    async def _record(self, outputs: Sequence[Output]) -> list[Output]:
        columns = [list(column) for column in zip(*map(_output_values, outputs), strict=True)]
        columns[_METADATA] = [
            None if metadata is None else json.dumps(metadata, ensure_ascii=False) for metadata in columns[_METADATA]
        ]
        async with transaction(self._pool) as connection:
            await _take_numbering_lock(connection)
            inserted = {tuple(row) for row in await connection.fetch(_RECORD, *columns)}
            return [
                output if (output.oss_key, output.created_at) in inserted else await _standing(connection, output)
                for output in outputs
            ]


async def _insert(connection: Connection, failure: Failure) -> Failure:
    await connection.execute(_FAIL, *_failure_values(failure))
    row = await connection.fetchrow(_FAILURE_OF, failure.id)
    if row is None:
        raise LookupError(f"the row of failure {failure.id} is gone")
    return failure_of_row(row)


async def _take_numbering_lock(connection: Connection) -> None:
    # A statement of its own: what follows must see what the lock's last holder committed.
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _NUMBERING_LOCK)


async def _output_of(asked: Asked, source: str | None, event_id: str | None) -> Output | None:
    row = await asked.fetchrow(_OUTPUT_OF, source, event_id)
    return output_of_row(row) if row else None


async def _standing(connection: Connection, output: Output) -> Output:
    standing = await _output_of(connection, output.event_source, output.event_id)
    if standing is None:
        raise LookupError(f"the row that kept output {output.id} out is gone")
    return standing


def output_of_row(row: Iterable[Any]) -> Output:
    """The output that the columns tell of."""
    values: list[Any] = list(row)
    values[_METADATA] = None if values[_METADATA] is None else json.loads(values[_METADATA])
    return Output(*values)


def failure_of_row(row: Iterable[Any]) -> Failure:
    """The failure that the columns tell of."""
    failure = Failure(*row)
    return replace(failure, reason=Reason(failure.reason))
