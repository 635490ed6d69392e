"""One suite for the port `Trials`: the fake, and PostgreSQL."""

from collections.abc import AsyncIterator

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


async def test_tries_that_never_ended_are_counted_for_each_suspect_and_erased_by_one_that_did(trials: Trials) -> None:
    assert [await trials.begin("killer") for _ in range(3)] == [0, 1, 2]
    assert await trials.begin("neighbour") == 0
    await trials.end("neighbour")
    await trials.end("neighbour that was never tried")
    assert await trials.begin("neighbour") == 0
    assert await trials.begin("killer") == 3
    await trials.end("killer")
    assert await trials.begin("killer") == 0
