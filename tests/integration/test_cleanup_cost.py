"""Looking for what is due costs what is due, however many rows there are beside it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from consumer.adapters import migrations, postgres
from consumer.adapters.postgres_cleanup import _EXPIRED
from consumer.core.cleanup import BATCH, Place

pytestmark = pytest.mark.real
_INDEX: Final = "job_outputs_ossBucket_expiresAt_id_idx"
_FILL: Final = """
    INSERT INTO job_outputs (id, "jobId", "userId", "eventSource", "eventId", "eventFingerprint", "ossBucket",
        "ossKey", url, "contentType", "sizeBytes", width, height, crc64, "createdAt", "expiresAt")
    SELECT gen_random_uuid(), 'job', 'user', '/generators/cost', 'event-' || number, '', 'bucket',
        'users/user/jobs/job/image-' || number || '-0123456789abcdef.png', '', 'image/png', 1, 1, 1, '0', now(),
        CASE WHEN number % ($1::int / 1000) = 0 THEN now() - interval '1 hour'
            WHEN number % 2 = 1 THEN now() + interval '1 day' END
    FROM generate_series(1, $1::int) AS number"""
"""A thousand are due, all over the table; half of the others will be, and the rest never."""


_HALF_IS_DUE: Final = """UPDATE job_outputs SET "expiresAt" = now() - interval '1 minute' WHERE "expiresAt" > now()"""


async def fill(pool: postgres.Pool, rows: int) -> None:
    """There are so many rows, of which a thousand are due."""
    await pool.execute("TRUNCATE job_outputs")
    await pool.execute(_FILL, rows, timeout=300)
    await pool.execute("VACUUM ANALYZE job_outputs", timeout=300)


async def look(pool: postgres.Pool) -> dict[str, Any]:
    """How the first thousand that are due are found."""
    values = ("bucket", datetime.now(UTC), Place().expires_at, Place().output_id, BATCH)
    explained = await pool.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {_EXPIRED}", *values)
    found: dict[str, Any] = json.loads(explained)[0]["Plan"]
    return found


def steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The plan's nodes."""
    yield plan
    for below in plan.get("Plans", []):
        yield from steps(below)


def pages(plan: dict[str, Any]) -> int:
    """Pages that were touched."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def test_of_ten_times_as_many_rows_not_a_page_more_is_touched_to_find_a_thousand(database_url: str) -> None:
    pool = await postgres.open_pool(database_url)
    plans = []
    try:
        await migrations.migrate(pool)
        for rows in (5_000, 50_000):
            await fill(pool, rows)
            plans.append(await look(pool))
        await pool.execute(_HALF_IS_DUE, timeout=300)
        await pool.execute("ANALYZE job_outputs", timeout=300)
        plans.append(await look(pool))
    finally:
        await postgres.close_pool(pool)
    for plan in plans:
        assert {step["Index Name"] for step in steps(plan) if "Index Name" in step} == {_INDEX}
        assert not any("Seq Scan" in step["Node Type"] or step.get("Filter") for step in steps(plan))
        assert plan["Actual Rows"] == 1000
        assert pages(plan) <= 1000 + 30  # one a row, and the index
