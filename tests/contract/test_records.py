"""One suite for the port `Records`: the fake, and PostgreSQL, with its table whole and in parts."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from consumer.adapters import migrations, postgres
from consumer.adapters.postgres_records import PostgresRecords
from consumer.core.ports import Records
from consumer.core.records import Cause, Failure, Recorded
from schemas.reasons import Reason
from tests import samples
from tests.fakes import FakeRecords

IN_PARTS = Path(__file__).parents[2] / "deploy" / "partition-job-outputs.sql"


@pytest.fixture
async def real(database_url: str) -> AsyncIterator[PostgresRecords]:
    pool = await postgres.open_pool(database_url)
    await migrations.migrate(pool)
    yield PostgresRecords(pool)
    await postgres.close_pool(pool)


@pytest.fixture
async def real_in_parts(database_url: str, real: PostgresRecords) -> PostgresRecords:
    connection = await asyncpg.connect(database_url)
    await connection.execute(IN_PARTS.read_text(encoding="utf-8"))
    await connection.close()
    return real


@pytest.fixture(
    params=[
        "fake",
        pytest.param("real", marks=pytest.mark.real, id="PostgreSQL"),
        pytest.param("real_in_parts", marks=pytest.mark.real, id="PostgreSQL, in parts"),
    ]
)
def records(request: pytest.FixtureRequest) -> Records:
    if request.param == "fake":
        return FakeRecords()
    found: Records = request.getfixturevalue(request.param)
    return found


async def test_nothing_is_known_of_an_event_that_is_new(records: Records) -> None:
    assert await records.find(Cause.of(samples.event())) == Recorded()


async def test_an_output_is_found_as_it_was_recorded(records: Records) -> None:
    event = samples.event()
    output = samples.output(event, expires_at=datetime(2090, 1, 1, tzinfo=UTC), prompt="ü 🦊 '\"\\")
    assert await records.record(output) == output
    assert await records.find(Cause.of(event)) == Recorded(owner=output.fingerprint, output=output)


async def test_the_first_output_of_an_event_stands(records: Records) -> None:
    event = samples.event()
    first, second = samples.output(event), samples.output(event, size_bytes=99)
    assert await records.record(first) == first
    assert await records.record(second) == first


async def test_of_many_at_once_exactly_one_stands_and_everybody_is_told_which(records: Records) -> None:
    event = samples.event()
    now = datetime.now(UTC)
    rivals = [samples.output(event, created_at=now + timedelta(microseconds=number)) for number in range(20)]
    standing = await asyncio.gather(*map(records.record, rivals))
    assert len({output.oss_key for output in standing}) == 1
    assert (await records.find(Cause.of(event))).output == standing[0]
    assert [rival for rival in rivals if rival == standing[0]] == [standing[0]]


async def test_outputs_of_many_events_are_recorded_and_found_at_once(records: Records) -> None:
    events = [samples.event() for _ in range(50)]
    outputs = [samples.output(event) for event in events]
    assert await asyncio.gather(*map(records.record, outputs)) == outputs
    found = await asyncio.gather(*(records.find(Cause.of(event)) for event in [*events, samples.event()]))
    assert [recorded.output for recorded in found] == [*outputs, None]


async def test_a_failure_is_found_by_its_run_and_no_other(records: Records) -> None:
    event = samples.event()
    failure = samples.failure(Cause.of(event), image_url=None)
    assert await records.fail(failure) == failure
    assert await records.find(Cause.of(event)) == Recorded(owner=failure.fingerprint, failure=failure)
    assert await records.find(Cause.of(event, replays=1)) == Recorded(owner=failure.fingerprint)


async def test_the_first_failure_of_a_run_stands(records: Records) -> None:
    cause = Cause.of(samples.event())
    first = samples.failure(cause)
    await records.fail(first)
    assert await records.fail(samples.failure(cause, reason=Reason.TOO_LARGE, attempts=7)) == first


async def test_an_output_wins_over_a_failure_of_the_same_event(records: Records) -> None:
    event = samples.event()
    output = samples.output(event)
    await records.record(output)
    assert await records.fail(samples.failure(Cause.of(event))) == output
    assert (await records.find(Cause.of(event))).failure is None


async def test_another_event_of_the_same_name_fails_beside_the_output(records: Records) -> None:
    event = samples.event()
    output = samples.output(event)
    await records.record(output)
    other = Cause.of(samples.event(id=event.id, job_id="other"))
    failure = samples.failure(other, id=other.conflict_id, reason=Reason.CONFLICTING_EVENT)
    assert await records.fail(failure) == failure
    assert await records.find(Cause.of(event)) == Recorded(owner=output.fingerprint, output=output)
    assert (await records.find(other)).owner == output.fingerprint


async def test_an_event_that_failed_owns_its_name_against_another(records: Records) -> None:
    event = samples.event()
    failure = samples.failure(Cause.of(event))
    await records.fail(failure)
    recorded = await records.find(Cause.of(samples.event(id=event.id, job_id="other")))
    assert recorded == Recorded(owner=failure.fingerprint)


async def test_of_two_that_failed_at_once_the_first_owns_the_name_until_one_is_stored(records: Records) -> None:
    events = [samples.event(id="0c5e", job_id=job) for job in ("zebra", "fox", "ant")]
    causes = [Cause.of(event) for event in events]
    for cause in causes:
        await records.fail(samples.failure(cause))
    assert {(await records.find(cause)).owner for cause in causes} == {causes[0].fingerprint}
    await records.record(samples.output(events[1]))
    assert {(await records.find(cause)).owner for cause in causes} == {causes[1].fingerprint}


@pytest.mark.parametrize("reason", [Reason.INVALID_EVENT, Reason.UNSUPPORTED_EVENT, Reason.CONFLICTING_EVENT])
async def test_what_was_never_read_as_an_event_owns_no_name(records: Records, reason: Reason) -> None:
    event = samples.event()
    await records.fail(samples.failure(Cause.of(event), fingerprint="another", reason=reason))
    assert await records.find(Cause.of(event)) == Recorded()


async def test_two_events_of_one_name_that_fail_have_a_row_each_with_its_own_reason(records: Records) -> None:
    event = samples.event()
    refused = samples.failure(Cause.of(event), fingerprint="another", reason=Reason.INVALID_EVENT, job_id=None)
    assert await records.fail(refused) == refused
    corrected = samples.failure(Cause.of(event))
    standing = await records.fail(corrected)
    assert isinstance(standing, Failure)
    assert (standing.reason, standing.job_id) == (corrected.reason, corrected.job_id)
    assert standing.id != refused.id
    assert await records.fail(corrected) == standing
    assert (await records.find(Cause.of(event))).failure == standing
    assert await records.fail(refused) == refused


async def test_a_message_that_names_nothing_fails_once_per_run(records: Records) -> None:
    cause = Cause("aa")
    failure = samples.failure(cause, reason=Reason.UNDECODABLE)
    assert await records.fail(failure) == failure
    assert await records.fail(samples.failure(cause, attempts=2)) == failure
    other = samples.failure(Cause("bb"), reason=Reason.UNDECODABLE)
    assert await records.fail(other) == other
