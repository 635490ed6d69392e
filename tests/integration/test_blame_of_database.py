"""Whose fault it is when PostgreSQL does not do what it was asked: each state that it can be brought to say."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from consumer.adapters import migrations, postgres
from consumer.adapters.postgres import BAD_DATA, Pool, answer, transaction
from consumer.adapters.postgres_records import PostgresRecords
from consumer.core.records import Cause, Output
from sandbox.postgres import Postgres
from tests import samples
from tests.faults.proxy import Proxy
from tests.integration.verdict import judged, verdict
from tests.named_servers import postgres_version

pytestmark = pytest.mark.real

MOST_CONNECTIONS: Final = 12
AWAY: Final = "held database_unavailable (database)"
DATA: Final = "retried unexpected"  # a defect of ours: nothing that a table cannot hold should have come so far

# What a transaction of ours runs into, by what PostgreSQL calls it: the statements that lead there.
STATES: Final = {
    "42P01": ["SELECT FROM nowhere"],
    "42703": ["SELECT nothing FROM job_outputs"],
    "42883": ["SELECT no_such_function()"],
    "42501": ["SET LOCAL ROLE pg_monitor", "SELECT FROM job_outputs"],
    "25006": ["SET TRANSACTION READ ONLY", "DELETE FROM job_outputs"],
    "57014": ["SET LOCAL statement_timeout = 20", "SELECT pg_sleep(5)"],
    "55P03": ["SET LOCAL lock_timeout = 20", "LOCK TABLE taken"],
    "53400": ["SET LOCAL temp_file_limit = 0", "SET LOCAL work_mem = '64kB'", "SELECT FROM many ORDER BY text"],
    "08P01": ["RAISE"],
    "40003": ["RAISE"],
    "53100": ["RAISE"],
    "53200": ["RAISE"],
    "57P02": ["RAISE"],
    "58030": ["RAISE"],
    "XX000": ["RAISE"],
    "XX001": ["RAISE"],
}

TABLES: Final = [
    "CREATE TABLE taken ()",
    "CREATE TABLE one ()",
    "CREATE TABLE other ()",
    "CREATE TABLE counter AS SELECT 0 AS value",
    "CREATE TABLE many AS SELECT repeat('x', 99) || n AS text FROM generate_series(1, 9999) AS n",
]

THE_FIRST: Final = object()  # stands for what another event has already
CANNOT_BE_HELD: Final[dict[str, dict[str, Any]]] = {
    "a NUL": {"prompt": "a NUL \0 that slipped through"},
    "a NUL in JSON": {"metadata": {"model": "a NUL \0"}},
    "a lone surrogate": {"prompt": "\ud800"},
    "no job": {"job_id": None},
    "a number that does not fit": {"width": 2**40},
    "a number that fits nowhere": {"size_bytes": 2**80},
    "a key of another event": {"oss_key": THE_FIRST},
    "an id of another event": {"id": THE_FIRST},
    "a name that no index can hold": {"event_id": secrets.token_hex(9000)},
}

VERDICTS: Final = [AWAY, DATA]


@pytest.fixture(scope="module")
def server(services_dir: Path, services_used: set[str]) -> Iterator[Postgres]:
    """A server that these tests may stop, with few connections."""
    settings = {"fsync": "off", "max_connections": str(MOST_CONNECTIONS), "deadlock_timeout": "20ms"}
    started = Postgres(services_dir / "postgres-of-blame", settings=settings)
    started.start()
    services_used.add(postgres_version(started.url))
    yield started
    started.remove()


@pytest.fixture(scope="module")
async def url(server: Postgres) -> str:
    """A database with our tables, one that somebody has locked and a large one."""
    url = server.add_database("blame")
    pool = await postgres.open_pool(url)
    await migrations.migrate(pool)
    for statement in TABLES:
        await pool.execute(statement)
    await postgres.close_pool(pool)
    return url


@pytest.fixture
async def pool(url: str) -> AsyncIterator[Pool]:
    pool = await postgres.open_pool(url)
    yield pool
    pool.terminate()


@pytest.fixture
async def rival(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Somebody else at the same tables."""
    connection = await asyncpg.connect(url)
    yield connection
    connection.terminate()


async def run(pool: Pool, statements: list[str], state: str) -> None:
    async with transaction(pool) as connection:
        for statement in statements:
            if statement == "RAISE":
                await connection.execute(f"DO $$ BEGIN RAISE 'as the server would' USING ERRCODE = '{state}'; END $$")
            else:
                await connection.execute(statement)


@pytest.mark.parametrize("state", STATES)
async def test_each_state_of_the_server_holds(
    pool: Pool, rival: "asyncpg.Connection[asyncpg.Record]", state: str
) -> None:
    await rival.execute("BEGIN; LOCK TABLE taken")
    with pytest.raises(Exception) as caught:  # noqa: PT011 its state is looked at
        await run(pool, STATES[state], state)
    assert state_of(caught.value) == state
    assert judged(caught.value) == AWAY
    await answer(pool.fetch("SELECT 1"))


@pytest.mark.parametrize("name", CANNOT_BE_HELD)
async def test_data_that_no_table_can_hold_is_a_defect_of_ours_and_its_neighbours_are_stored(
    pool: Pool, name: str
) -> None:
    records = PostgresRecords(pool)
    first = await records.record(samples.output(samples.event()))
    changes = {
        field: getattr(first, field) if value is THE_FIRST else value for field, value in CANNOT_BE_HELD[name].items()
    }
    outputs = [samples.output(samples.event()) for _ in range(4)]
    outputs[2] = samples.output(samples.event(), **changes)
    results = await asyncio.gather(*map(records.record, outputs), return_exceptions=True)
    assert [isinstance(result, Output) for result in results] == [True, True, False, True]
    assert isinstance(results[2], BAD_DATA)
    assert judged(results[2]) == DATA


async def test_a_session_that_an_administrator_ends_holds(pool: Pool) -> None:
    assert await verdict(run(pool, ["SELECT pg_terminate_backend(pg_backend_pid())"], "57P01")) == AWAY
    await answer(pool.fetch("SELECT 1"))


async def test_a_deadlock_holds(pool: Pool, rival: "asyncpg.Connection[asyncpg.Record]") -> None:
    await rival.execute("BEGIN; SET LOCAL deadlock_timeout = '10s'; LOCK TABLE one")

    async def cross() -> None:
        async with transaction(pool) as connection:
            await connection.execute("LOCK TABLE other")
            crossing = asyncio.create_task(rival.execute("LOCK TABLE other"))
            try:
                await connection.execute("LOCK TABLE one")
            finally:
                crossing.add_done_callback(lambda task: task.cancelled() or task.exception())

    assert await cause_of(cross()) == ("40P01", AWAY)


async def test_a_serialization_failure_holds(pool: Pool, rival: "asyncpg.Connection[asyncpg.Record]") -> None:
    async def overtaken() -> None:
        async with transaction(pool) as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await connection.fetch("SELECT value FROM counter")
            await rival.execute("UPDATE counter SET value = 1")
            await connection.execute("UPDATE counter SET value = 2")

    assert await cause_of(overtaken()) == ("40001", AWAY)


async def test_too_many_connections_hold(url: str, pool: Pool) -> None:
    taken = [await asyncpg.connect(url) for _ in range(MOST_CONNECTIONS - 1)]
    async with pool.acquire():  # the one that it has
        assert await cause_of(PostgresRecords(pool).find(Cause.of(samples.event()))) == ("53300", AWAY)
    for connection in taken:
        await connection.close()


async def test_a_database_that_is_dropped_holds(server: Postgres) -> None:
    pool = await postgres.open_pool(server.add_database("doomed"))
    admin = await asyncpg.connect(server.url)
    await admin.execute("DROP DATABASE doomed WITH (FORCE)")
    await admin.close()
    records = PostgresRecords(pool)
    found = [await cause_of(records.find(Cause.of(samples.event()))) for _ in range(2)]
    assert [verdict for _, verdict in found] == [AWAY, AWAY]
    assert found[1] == ("3D000", AWAY)
    pool.terminate()


async def test_a_statement_that_is_never_answered_holds(url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_COMMAND_TIMEOUT_S", 0.2)
    impatient = await postgres.open_pool(url)
    assert await verdict(answer(impatient.fetch("SELECT pg_sleep(60)"))) == AWAY
    impatient.terminate()


async def test_a_connection_that_is_cut_or_silent_holds(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_COMMAND_TIMEOUT_S", 1)
    monkeypatch.setattr(postgres, "_CONNECT_TIMEOUT_S", 1)
    async with Proxy(url) as proxy:
        pool = await postgres.open_pool(proxy.url())
        proxy.freeze()
        assert await verdict(answer(pool.fetch("SELECT 1"))) == AWAY
        assert await verdict(answer(pool.fetch("SELECT 1"))) == AWAY  # over a connection that is new
        proxy.thaw()
        await answer(pool.fetch("SELECT 1"))
        await proxy.reset()
        assert await verdict(answer(pool.fetch("SELECT 1"))) == AWAY
        await proxy.down()
        assert await verdict(answer(pool.fetch("SELECT 1"))) == AWAY
    pool.terminate()


@pytest.mark.parametrize("state", ["57P01", "57P03"])
async def test_a_server_that_shuts_down_holds(server: Postgres, url: str, pool: Pool, state: str) -> None:
    postmaster = server.processes[0]
    try:
        async with pool.acquire() as connection:
            await connection.fetch("SELECT 1")
            if state == "57P01":
                asking = asyncio.create_task(cause_of(answer(connection.fetch("SELECT pg_sleep(60)"))))
                await sleeping(url)
                postmaster.send(signal.SIGINT)  # a fast shutdown
                assert await asking in ((state, AWAY), ("08003", AWAY))  # what was said, or that the line is dead
            else:
                postmaster.send(signal.SIGTERM)  # a smart one, which waits for this connection
                found = await until(lambda: cause_of(PostgresRecords(pool).find(Cause.of(samples.event()))))
                assert found == (state, AWAY)
    finally:
        await asyncio.to_thread(server.stop)
        assert await verdict(PostgresRecords(pool).probe()) == AWAY
        await asyncio.to_thread(server.start)
    await PostgresRecords(pool).probe()


async def sleeping(url: str) -> None:
    """The server runs a statement that sleeps."""
    watcher = await asyncpg.connect(url)
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    while not await watcher.fetchval(query):
        pass
    await watcher.close()


async def until(try_: Callable[[], Awaitable[tuple[str | None, str]]]) -> tuple[str | None, str]:
    """What the first of the tries that fails says."""
    while True:
        try:
            return await try_()
        except AssertionError:  # it worked, still
            await asyncio.sleep(0)


async def cause_of(work: Awaitable[object]) -> tuple[str | None, str]:
    """What PostgreSQL calls what stopped the work, and the verdict."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 whatever comes is judged
        return state_of(error), judged(error)
    raise AssertionError("it worked")


def state_of(error: BaseException) -> str | None:
    """What PostgreSQL calls it, if it said so before the driver lost the connection."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, asyncpg.PostgresError):
        cause = cause.__cause__ or cause.__context__
    return None if cause is None else cause.sqlstate
