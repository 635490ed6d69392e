"""One suite for the port `Trials`: the fake, and PostgreSQL."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from consumer.adapters import migrations, postgres
from consumer.adapters.postgres_trials import PostgresTrials
from consumer.core.ports import Trials
from tests.fakes import FakeTrials


@pytest.fixture
async def real(database_url: str) -> AsyncIterator[PostgresTrials]:
    pool = await postgres.open_pool(database_url)
    await migrations.migrate(pool)
    yield PostgresTrials(pool)
    await postgres.close_pool(pool)


@pytest.fixture(params=["fake", pytest.param("PostgreSQL", marks=pytest.mark.real)])
def trials(request: pytest.FixtureRequest) -> Trials:
    if request.param == "fake":
        return FakeTrials()
    found: Trials = request.getfixturevalue("real")
    return found


async def test_tries_that_have_not_ended_are_counted_for_each_suspect(trials: Trials) -> None:
    tries = [uuid4() for _ in range(3)]
    for trial in tries:
        await trials.begin("killer", trial)
    await trials.begin("neighbour", neighbour := uuid4())
    assert (await trials.crashes("killer"), await trials.crashes("neighbour")) == (3, 1)
    await trials.end(neighbour)
    await trials.end(tries[0])
    assert (await trials.crashes("killer"), await trials.crashes("neighbour")) == (2, 0)


async def test_a_try_whose_beginning_is_told_twice_is_one_and_one_that_never_began_can_end(trials: Trials) -> None:
    trial = uuid4()
    await trials.begin("suspect", trial)
    await trials.begin("suspect", trial)
    await trials.end(uuid4())
    assert await trials.crashes("suspect") == 1


@pytest.mark.real
async def test_what_never_ended_is_forgotten_after_a_day(real: PostgresTrials) -> None:
    await real.begin("suspect", uuid4())
    await real._pool.execute("""UPDATE job_trials SET "begunAt" = now() - interval '25 hours'""")
    assert await real.crashes("suspect") == 0
    await real.begin("another", another := uuid4())
    await real.end(another)
    assert await real._pool.fetchval("SELECT count(*) FROM job_trials") == 0
