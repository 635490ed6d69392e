"""Erasure on request: which outputs expire, when, and which stay as they are."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from consumer.adapters import migrations, postgres, postgres_expiry
from consumer.adapters.postgres_cleanup import PostgresCleanup
from consumer.adapters.postgres_expiry import PostgresExpiry, Sum, Whose
from consumer.adapters.postgres_records import PostgresRecords
from consumer.core.cleanup import Place
from consumer.core.errors import DependencyError
from consumer.core.records import Output
from consumer.operate.expire import Tally, expire, expire_at_once, meant
from consumer.settings import ExpireSettings
from sandbox.process import free_port
from tests import samples

pytestmark = pytest.mark.real

CANARY = "canary-that-nobody-may-see"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[postgres.Pool]:
    pool = await postgres.open_pool(database_url)
    await migrations.migrate(pool)
    yield pool
    await postgres.close_pool(pool)


async def record(pool: postgres.Pool, user_id: str = "fox", job_id: str = "job", **changes: Any) -> Output:
    of = samples.event(user_id=user_id, job_id=job_id)
    return await PostgresRecords(pool).record(samples.output(of, **changes))


async def times(pool: postgres.Pool) -> dict[UUID, datetime | None]:
    """When each output expires."""
    return {row[0]: row[1] for row in await pool.fetch('SELECT id, "expiresAt" FROM job_outputs')}


async def expired(pool: postgres.Pool, whose: Whose, batch: int = 5000) -> Tally:
    tally = Tally()
    await expire_at_once(PostgresExpiry(pool, batch), whose, tally)
    return tally


async def test_the_outputs_of_a_user_a_job_or_one_alone_expire(pool: postgres.Pool) -> None:
    mine = [await record(pool, "fox", f"job-{number % 2}", size_bytes=number + 1) for number in range(4)]
    other = await record(pool, "fox.2", "job-0", size_bytes=100)
    for whose, count, size_bytes in (
        (Whose(output_id=mine[3].id), 1, 4),
        (Whose(job_id="job-1"), 1, 2),  # the other one has expired with the line above
        (Whose(user_id="fox"), 2, 4),
        (Whose(user_id="fo"), 0, 0),
        (Whose(user_id="%"), 0, 0),
        (Whose(output_id=uuid4()), 0, 0),
    ):
        tally = await expired(pool, whose)
        assert (tally.done, tally.size_bytes) == (count, size_bytes), whose
    assert (await times(pool))[other.id] is None
    assert (await expired(pool, Whose(job_id="job-0"))).done == 1


async def test_all_expire_at_one_moment_of_the_databases_time_whatever_the_batches(pool: postgres.Pool) -> None:
    await asyncio.gather(*(record(pool) for _ in range(25)))
    before = await pool.fetchval("SELECT clock_timestamp()")
    tally = await expired(pool, Whose(user_id="fox"), batch=10)
    after = await pool.fetchval("SELECT clock_timestamp()")
    assert tally.done == 25
    assert tally.size_bytes == 75
    (at,) = set((await times(pool)).values())
    assert at == tally.at
    assert before <= at <= after


@pytest.mark.parametrize("count", [0, 9, 10, 11, 20])
async def test_each_batch_is_bounded_and_none_is_left_out_at_its_borders(pool: postgres.Pool, count: int) -> None:
    await asyncio.gather(*(record(pool) for _ in range(count)))
    rows = PostgresExpiry(pool, 10)
    batches = [batch async for batch in rows.expire(Whose(user_id="fox"), await rows.now())]
    assert sum(batch.count for batch in batches) == count
    assert all(batch.count <= 10 for batch in batches)


async def test_what_has_expired_or_is_deleted_stays_and_a_later_time_is_brought_forward(pool: postgres.Pool) -> None:
    now = datetime.now(UTC)
    past = await record(pool, expires_at=now - timedelta(hours=1))
    later = await record(pool, expires_at=now + timedelta(days=1))
    deleted = await record(pool, expires_at=now + timedelta(days=2))
    await pool.execute('UPDATE job_outputs SET "deletedAt" = now() WHERE id = $1', deleted.id)
    tally = await expired(pool, Whose(user_id="fox"))
    assert tally.done == 1
    assert await times(pool) == {past.id: past.expires_at, later.id: tally.at, deleted.id: deleted.expires_at}
    # Again, there is nothing left to do, and no time is moved.
    assert (await expired(pool, Whose(user_id="fox"))).done == 0
    assert (await times(pool))[later.id] == tally.at


async def test_what_is_stored_after_the_moment_is_not_meant(pool: postgres.Pool) -> None:
    first = await record(pool)
    rows = PostgresExpiry(pool)
    moment = await rows.now()
    late = await record(pool)
    assert await rows.meant(Whose(user_id="fox"), moment) == Sum(1, 3)
    assert [batch async for batch in rows.expire(Whose(user_id="fox"), moment)] == [Sum(1, 3)]
    assert await times(pool) == {first.id: moment.at, late.id: None}


async def test_the_cleanup_finds_at_once_what_has_expired(pool: postgres.Pool) -> None:
    output = await record(pool)
    await expired(pool, Whose(output_id=output.id))
    now = await pool.fetchval("SELECT clock_timestamp()")
    (due,) = await PostgresCleanup(pool).expired(output.oss_bucket, now, Place(), 10)
    assert due.id == output.id


async def test_a_dry_run_counts_the_same_and_changes_nothing(pool: postgres.Pool, database_url: str) -> None:
    settings = ExpireSettings(database_url=database_url)
    output = await record(pool)
    assert await meant(settings, Whose(user_id="fox")) == Sum(1, 3)
    assert await times(pool) == {output.id: None}
    await expire(settings, Whose(user_id="fox"), tally := Tally())
    assert (tally.done, tally.size_bytes) == (1, 3)
    assert await meant(settings, Whose(user_id="fox")) == Sum(0, 0)


async def test_what_is_broken_off_says_how_far_it_came_and_can_be_run_again(
    pool: postgres.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(record(pool) for _ in range(25)))
    rows = PostgresExpiry(pool, 10)
    complete = rows.expire

    async def broken(*of: Any) -> AsyncIterator[Sum]:
        async for batch in complete(*of):
            yield batch
            await pool.execute("ALTER TABLE job_outputs RENAME TO away")

    monkeypatch.setattr(rows, "expire", broken)
    tally = Tally()
    with pytest.raises(DependencyError, match="job_outputs"):
        await expire_at_once(rows, Whose(user_id="fox"), tally)
    await pool.execute("ALTER TABLE away RENAME TO job_outputs")
    assert tally.done == 10
    assert sum(at is not None for at in (await times(pool)).values()) == 10
    assert (await expired(pool, Whose(user_id="fox"), batch=10)).done == 15


@pytest.mark.parametrize("whose", [Whose(user_id="user-7"), Whose(job_id="job-7"), Whose(output_id=UUID(int=7))])
async def test_what_is_meant_is_found_by_an_index_beside_all_others(pool: postgres.Pool, whose: Whose) -> None:
    await pool.execute("""
        INSERT INTO job_outputs (id, "jobId", "userId", "eventSource", "eventId", "eventFingerprint", "ossBucket",
            "ossKey", url, "contentType", "sizeBytes", width, height, crc64, "createdAt")
        SELECT lpad(to_hex(i), 32, '0')::uuid, 'job-' || i, 'user-' || i, 's', i, '', 'bucket', i, '', '', 1, 1, 1, '',
            now() FROM generate_series(1, 20000) i""")
    await pool.execute("ANALYZE job_outputs")
    values = postgres_expiry._values(whose, await PostgresExpiry(pool).now())
    for query, more in ((postgres_expiry._SUM, ()), (postgres_expiry._EXPIRE, (0, 5000))):
        plan = "\n".join(line for (line,) in await pool.fetch(f"EXPLAIN {query}", *values, *more))
        assert "Seq Scan" not in plan
        assert "Index" in plan


async def test_a_database_that_is_away_is_told_without_its_password() -> None:
    away = ExpireSettings(database_url=f"postgresql://user:{CANARY}@127.0.0.1:{free_port()}/x")
    with pytest.raises(DependencyError, match=r"PostgreSQL at 127\.0\.0\.1:\d+/x does not answer") as caught:
        await expire(away, Whose(user_id="fox"), Tally())
    assert CANARY not in str(caught.value)
