import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from importlib import resources
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from consumer.adapters import migrations, postgres
from consumer.adapters.postgres_cleanup import _USES
from consumer.adapters.postgres_records import _FIND, _NEVER_EVENTS, PostgresRecords, _take_numbering_lock
from consumer.core.errors import DependencyError, StartError
from consumer.core.records import Cause, Recorded
from consumer.core.source_file import source_file
from sandbox.postgres import Postgres
from schemas.reasons import Reason
from tests import samples
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.real

MIGRATIONS = ["0001_outputs_and_failures.sql", "0002_trials.sql", "0003_cleanup.sql"]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[postgres.Pool]:
    pool = await postgres.open_pool(database_url)
    yield pool
    await postgres.close_pool(pool)


@pytest.fixture
async def records(pool: postgres.Pool) -> PostgresRecords:
    await migrations.migrate(pool)
    return PostgresRecords(pool)


async def test_migrations_are_applied_once_however_many_workers_start(pool: postgres.Pool) -> None:
    applied = await asyncio.gather(*(migrations.migrate(pool) for _ in range(4)))
    assert sorted(applied) == [[], [], [], MIGRATIONS]


async def test_a_migration_may_take_longer_than_a_statement_of_a_worker(
    pool: postgres.Pool, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    # As with indexes of a table of many millions of rows.
    await pool.execute(
        """
        CREATE FUNCTION linger() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); END';
        CREATE EVENT TRIGGER linger ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION linger()"""
    )
    monkeypatch.setattr(postgres, "_COMMAND_TIMEOUT_S", 0.5)
    async with asyncio.timeout(20), postgres.opened_pool(database_url) as impatient:
        assert await migrations.migrate(impatient) == MIGRATIONS


@pytest.mark.parametrize(
    "url",
    [
        "file:///t/fox.png",
        "FILE://localhost/t/fox%20one.png",
        "file:/t/%C3%BC%f0%9f%a6%8a/ü🦊.png",
        "file:////t//./er/./fox.png/",
        "file:///t/../fox.png",
        "file:///t/.hidden/..more/a.b.",
        "file:///t/%41%2541%",
        "file:///t/%2e/%2Fx",
        "file:///t/100%zz",
        "file:///t/%0Aline",
        "file:///t/back\\slash\\x41",
        "file:///t/%00.png",
        "file:///t/%ff.png",
        "file:///",
        "https://cdn.test/file:/fox.png",
        "data:image/png;base64,…",
        None,
    ],
)
async def test_failures_from_before_the_cleanup_tell_their_file_too(pool: postgres.Pool, url: str | None) -> None:
    await pool.execute(migrations._TABLE)
    for name in MIGRATIONS[:2]:
        await pool.execute((resources.files("consumer") / "sql" / name).read_text())
        await pool.execute("INSERT INTO image_uploads_migrations (name) VALUES ($1)", name)
    await pool.execute(
        """INSERT INTO job_failures (id, "eventFingerprint", "imageUrl", reason, detail, attempts, replays, "failedAt")
            VALUES (gen_random_uuid(), 'f', $1, 'source_gone', 'd', 1, 0, now())""",
        url,
    )
    assert await migrations.migrate(pool) == MIGRATIONS[2:]
    assert await pool.fetchval('SELECT "sourceFile" FROM job_failures') == source_file(url)
    assert await pool.fetchval("SELECT count(*) FROM pg_proc WHERE proname LIKE 'image_uploads%'") == 0


async def test_both_tables_tell_the_file_that_an_event_named_however_long_its_path_is(
    pool: postgres.Pool, records: PostgresRecords
) -> None:
    for path in ("/t/fox one.png", "/t/" + "ü" * 4000):
        event = samples.event(image_url=f"file://{quote(path)}")
        failure = samples.failure(Cause.of(event), source_file=source_file(event.data.image_url))
        output = samples.output(event, source_file=source_file(event.data.image_url))
        assert await records.fail(failure) == failure
        assert await records.record(output) == output
        for table in ("job_outputs", "job_failures"):
            assert await pool.fetchval(f'SELECT "sourceFile" FROM {table} ORDER BY number DESC LIMIT 1') == path


@pytest.mark.parametrize("table", ["job_outputs", "job_failures"])
async def test_a_table_that_something_else_made_is_refused_and_left_as_it_is(pool: postgres.Pool, table: str) -> None:
    await pool.execute(f'CREATE TABLE {table} (id serial, "jobId" text)')
    with pytest.raises(
        StartError, match=f"{table} was made by something else: it has the columns id, jobId, and needs id, number"
    ) as caught:
        await migrations.migrate(pool)
    assert "and needs id, number, " in str(caught.value)
    assert await pool.fetchval("SELECT to_regclass('image_uploads_migrations')") is None
    columns = await pool.fetch("SELECT column_name FROM information_schema.columns WHERE table_name = $1", table)
    assert [row["column_name"] for row in columns] == ["id", "jobId"]


async def test_the_refusal_lists_exactly_the_columns_that_the_tables_get(pool: postgres.Pool) -> None:
    sql = (resources.files("consumer") / "sql" / "0001_outputs_and_failures.sql").read_text()
    await migrations.migrate(pool)
    for table in ("job_outputs", "job_failures"):
        found = [row["attname"] for row in await pool.fetch(migrations._COLUMNS_OF, table)]
        assert [*migrations._columns(sql, table), "sourceFile"] == found  # which a later file adds


async def test_the_users_query_answers_as_written(pool: postgres.Pool, records: PostgresRecords) -> None:
    for _ in range(2):
        await records.record(samples.output(samples.event()))
    last = await records.record(samples.output(samples.event()))
    rows = await pool.fetch('SELECT * FROM job_outputs ORDER BY "createdAt" DESC LIMIT 1;')
    (row,) = rows
    assert set(row.keys()) >= {
        *("id", "jobId", "userId", "eventSource", "eventId", "ossBucket", "ossKey", "url", "contentType"),
        *("sizeBytes", "width", "height", "crc64", "prompt", "metadata", "createdAt", "expiresAt", "deletedAt"),
    }
    assert row["id"] == last.id
    assert row["crc64"] == "18446744073709551615"
    assert json.loads(row["metadata"]) == last.metadata
    assert row["createdAt"].tzinfo is not None


async def test_numbers_follow_commits_over_both_tables(database_url: str, records: PostgresRecords) -> None:
    """A reader who asks for what comes after the highest number it has seen misses nothing."""
    seen: list[int] = []
    writing = True
    reader = await asyncpg.connect(database_url)

    async def read() -> None:
        while writing:
            last = seen[-1] if seen else 0
            query = """SELECT number FROM job_outputs WHERE number > $1 UNION ALL
                SELECT number FROM job_failures WHERE number > $1 ORDER BY number"""
            seen.extend(row["number"] for row in await reader.fetch(query, last))

    async def write() -> None:
        pool = await postgres.open_pool(database_url)
        rival = PostgresRecords(pool)
        for _ in range(30):
            events = [samples.event() for _ in range(5)]
            await asyncio.gather(
                *(rival.record(samples.output(event)) for event in events[:3]),
                *(rival.fail(samples.failure(Cause.of(event))) for event in events[3:]),
            )
        await postgres.close_pool(pool)

    reading = asyncio.create_task(read())
    await asyncio.gather(*(write() for _ in range(4)))
    writing = False
    await reading
    writing, last_round = True, asyncio.create_task(read())
    await asyncio.sleep(0)
    writing = False
    await last_round
    numbers = await reader.fetch("SELECT number FROM job_outputs UNION ALL SELECT number FROM job_failures")
    await reader.close()
    assert len(numbers) == 4 * 30 * 5
    assert sorted(row["number"] for row in numbers) == seen


async def test_an_event_that_fails_and_is_stored_at_once_ends_as_stored(
    pool: postgres.Pool, records: PostgresRecords
) -> None:
    for _ in range(40):
        event = samples.event()
        output = samples.output(event)
        await asyncio.gather(records.fail(samples.failure(Cause.of(event))), records.record(output))
        unresolved = await pool.fetchval(
            'SELECT count(*) FROM job_failures WHERE "eventId" = $1 AND "resolvedAt" IS NULL', event.id
        )
        assert unresolved == 0


async def test_a_replay_that_is_stored_resolves_every_earlier_failure_and_no_conflict(
    pool: postgres.Pool, records: PostgresRecords
) -> None:
    event = samples.event()
    for replays in range(2):
        await records.fail(samples.failure(Cause.of(event, replays)))
    other = Cause.of(samples.event(id=event.id, job_id="other"))
    await records.fail(samples.failure(other, id=other.conflict_id, reason=Reason.CONFLICTING_EVENT))
    await records.record(samples.output(event))
    rows = await pool.fetch('SELECT reason, "resolvedAt" IS NOT NULL AS resolved FROM job_failures ORDER BY number')
    assert [tuple(row) for row in rows] == [
        ("not_an_image", True),
        ("not_an_image", True),
        ("conflicting_event", False),
    ]


async def test_one_bad_row_fails_alone(records: PostgresRecords) -> None:
    outputs = [samples.output(samples.event()) for _ in range(10)]
    outputs[4] = samples.output(samples.event(), prompt="a NUL \0 that slipped through")
    results = await asyncio.gather(*map(records.record, outputs), return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [number == 4 for number in range(10)]
    assert isinstance(results[4], asyncpg.DataError)


async def test_one_bad_look_up_fails_alone(records: PostgresRecords) -> None:
    causes = [Cause.of(samples.event()) for _ in range(4)]
    causes[2] = replace(causes[2], event_id="a\0b")
    found = await asyncio.gather(*map(records.find, causes), return_exceptions=True)
    assert isinstance(found.pop(2), postgres.BAD_DATA)
    assert found == [Recorded()] * 3


async def test_two_outputs_under_one_key_are_an_error_and_not_silence(records: PostgresRecords) -> None:
    one, two = (samples.output(samples.event(), oss_key="users/u/jobs/j/same.png") for _ in range(2))
    await records.record(one)
    with pytest.raises(asyncpg.UniqueViolationError):
        await records.record(two)


async def test_looking_up_costs_index_scans_only_even_when_the_tables_are_large(
    pool: postgres.Pool, records: PostgresRecords
) -> None:
    async with pool.acquire() as connection:
        await connection.execute("""
            INSERT INTO job_outputs SELECT gen_random_uuid(), n, 'j', 'u', 's', n::text, 'f', 'b', n::text, 'u', 'c',
                1, 1, 1, '1', NULL, NULL, now() FROM generate_series(1, 20000) AS n;
            INSERT INTO job_failures SELECT gen_random_uuid(), 20000 + n, 's', n::text, 'f', 'j', 'u', NULL, 'r', 'd',
                1, 0, now() FROM generate_series(1, 20000) AS n;
            ANALYZE job_outputs, job_failures""")
        causes = [Cause.of(samples.event()) for _ in range(20)]
        plan: list[Any] = json.loads(
            await connection.fetchval(
                f"EXPLAIN (FORMAT JSON) {_FIND}",
                [cause.source for cause in causes],
                [cause.event_id for cause in causes],
                [cause.fingerprint for cause in causes],
                [cause.replays for cause in causes],
                _NEVER_EVENTS,
            )
        )
    text = json.dumps(plan)
    assert "Seq Scan" not in text
    assert text.count("Index Scan") + text.count("Bitmap Index Scan") >= 3


async def test_asking_what_a_thousand_files_are_to_the_rows_costs_look_ups_by_hash_only(
    pool: postgres.Pool, records: PostgresRecords
) -> None:
    async with pool.acquire() as connection:
        await connection.execute("""
            INSERT INTO job_outputs SELECT gen_random_uuid(), n, 'j', 'u', 's', n::text, 'f', 'b', n::text, 'u', 'c',
                1, 1, 1, '1', NULL, NULL, now(), NULL, NULL, '/t/' || n FROM generate_series(1, 100000) AS n;
            INSERT INTO job_failures SELECT gen_random_uuid(), 100000 + n, 's', n::text, 'f', 'j', 'u', NULL, 'r', 'd',
                1, 0, now(), NULL, '/t/' || n FROM generate_series(1, 100000) AS n;
            ANALYZE job_outputs, job_failures""")
        paths = [f"/t/{number}" for number in range(1000)]
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {_USES}", paths)
    assert "Seq Scan" not in plan
    assert plan.count('"Index Scan"') + plan.count('"Bitmap Index Scan"') == 2
    assert "sourceFile" in plan
    assert json.loads(plan)[0]["Execution Time"] < 1000


async def test_a_database_that_is_away_is_a_neighbours_fault_and_comes_back_by_itself(
    private_postgres: Callable[[], Postgres],
) -> None:
    server = private_postgres()
    pool = await postgres.open_pool(server.url)
    await migrations.migrate(pool)
    records = PostgresRecords(pool)
    event = samples.event()
    output = await records.record(samples.output(event))
    server.kill()
    for call in (
        records.find(Cause.of(event)),
        records.record(samples.output(samples.event())),
        records.fail(samples.failure(Cause.of(samples.event()))),
        records.probe(),
    ):
        with pytest.raises(DependencyError) as caught:
            await call
        assert (caught.value.dependency, caught.value.reason) == ("database", Reason.DATABASE_UNAVAILABLE)
    server.start()
    assert (await records.find(Cause.of(event))).output == output
    await postgres.close_pool(pool)


async def test_who_falls_silent_while_it_draws_a_number_stops_nobody_else_for_long(
    database_url: str, records: PostgresRecords
) -> None:
    output = samples.output(samples.event())
    async with Proxy(database_url) as proxy:
        other = await postgres.open_pool(proxy.url())
        silent = await other.acquire()
        await silent.transaction().start()
        await _take_numbering_lock(silent)
        proxy.freeze()
        assert await records.record(output) == output
        other.terminate()


async def test_a_probe_leaves_no_row_and_fails_where_none_could_be_written(
    pool: postgres.Pool, records: PostgresRecords
) -> None:
    await records.probe()
    for table in ("job_failures", "job_outputs", "job_trials", "job_cleanup"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0
    for trouble, mend in (
        ("ALTER TABLE job_cleanup RENAME TO job_cleanup_away", "ALTER TABLE job_cleanup_away RENAME TO job_cleanup"),
        ("ALTER TABLE job_trials RENAME TO job_trials_away", "ALTER TABLE job_trials_away RENAME TO job_trials"),
        ("ALTER TABLE job_outputs RENAME TO job_outputs_away", "ALTER TABLE job_outputs_away RENAME TO job_outputs"),
    ):
        await pool.execute(trouble)
        with pytest.raises(DependencyError):
            await records.probe()
        await pool.execute(mend)
    database = await pool.fetchval("SELECT current_database()")
    await pool.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await pool.expire_connections()
    with pytest.raises(DependencyError, match="read-only"):
        await records.probe()


async def test_a_table_that_is_missing_is_a_neighbours_fault_too(pool: postgres.Pool) -> None:
    with pytest.raises(DependencyError, match='relation "job_outputs" does not exist'):
        await PostgresRecords(pool).find(Cause.of(samples.event()))


async def test_whose_session_the_server_ends_blames_nobody_but_the_database(
    database_url: str, records: PostgresRecords
) -> None:
    ends = 40
    is_over = asyncio.Event()

    async def ask() -> int:
        troubles = 0
        while not is_over.is_set():
            try:
                await records.find(Cause.of(samples.event()))
            except DependencyError:
                troubles += 1
            await asyncio.sleep(0)
        return troubles

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    server = await asyncpg.connect(database_url)
    for _ in range(ends):
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        await server.execute(f"{others} AND pid <> pg_backend_pid()")
        await server.execute("SELECT pg_sleep(0.05)")
    is_over.set()
    await server.close()
    assert sum(await asyncio.gather(*asking)) >= ends / 2
