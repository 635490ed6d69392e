"""One suite for the port `CleanupRecords`: the fake, and PostgreSQL."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from consumer.adapters import migrations, postgres
from consumer.adapters.postgres import Pool
from consumer.adapters.postgres_cleanup import PostgresCleanup
from consumer.adapters.postgres_records import PostgresRecords
from consumer.core.cleanup import Place
from consumer.core.ports import CleanupRecords, FileUse, Records
from consumer.core.records import Cause, Output
from tests import samples
from tests.fakes import FakeCleanupRecords, FakeRecords

NOW = datetime.now(UTC) - timedelta(hours=1)
BEFORE = NOW - timedelta(days=1)


@dataclass
class Rows:
    """What a cleanup is told of, who puts it there, and the pool of the real ones."""

    cleanup: CleanupRecords
    records: Records
    pool: "Pool | None" = None

    async def add(self, **changes: Any) -> Output:
        return await self.records.record(samples.output(samples.event(), **changes))

    async def due(self, after: Place | None = None, limit: int = 1000) -> list[UUID]:
        place = after if after is not None else Place()
        return [output.id for output in await self.cleanup.expired("bucket", NOW, place, limit)]

    async def deleted_at(self, output: Output) -> datetime | None:
        if self.pool is None:
            assert isinstance(self.cleanup, FakeCleanupRecords)
            return self.cleanup.deleted.get(output.id)
        found: datetime | None = await self.pool.fetchval(
            'SELECT "deletedAt" FROM job_outputs WHERE id = $1', output.id
        )
        return found


@pytest.fixture
async def real(database_url: str) -> AsyncIterator[Rows]:
    pool = await postgres.open_pool(database_url)
    await migrations.migrate(pool)
    yield Rows(PostgresCleanup(pool), PostgresRecords(pool), pool)
    await postgres.close_pool(pool)


@pytest.fixture(params=["fake", pytest.param("PostgreSQL", marks=pytest.mark.real)])
def rows(request: pytest.FixtureRequest) -> Rows:
    if request.param == "fake":
        records = FakeRecords()
        return Rows(FakeCleanupRecords(records=records), records)
    found: Rows = request.getfixturevalue("real")
    return found


async def test_what_is_due_comes_in_the_order_of_its_time(rows: Rows) -> None:
    late = await rows.add(expires_at=NOW)
    early = await rows.add(expires_at=BEFORE)
    middle = await rows.add(expires_at=NOW - timedelta(microseconds=1))
    assert await rows.due() == [early.id, middle.id, late.id]


async def test_what_is_not_due_yet_never_expires_or_is_in_another_bucket_is_left_out(rows: Rows) -> None:
    await rows.add(expires_at=NOW + timedelta(microseconds=1))
    await rows.add(expires_at=None)
    await rows.add(expires_at=BEFORE, oss_bucket="another")
    assert await rows.due() == []


async def test_nothing_is_due_for_a_clock_that_is_ahead(rows: Rows) -> None:
    await rows.add(expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert await rows.cleanup.expired("bucket", datetime.now(UTC) + timedelta(days=1), Place(), 1) == []


async def test_an_output_that_is_due_is_told_without_what_may_be_long(rows: Rows) -> None:
    output = await rows.add(expires_at=BEFORE, prompt="x" * 100_000)
    (found,) = await rows.cleanup.expired("bucket", NOW, Place(), 1)
    assert found == replace(output, prompt=None, metadata=None)


async def test_one_goes_on_behind_a_place_and_misses_none_even_of_one_time(rows: Rows) -> None:
    outputs = sorted([await rows.add(expires_at=BEFORE) for _ in range(7)], key=lambda output: output.id)
    later = await rows.add(expires_at=NOW)
    place, seen = Place(), []
    while page := await rows.cleanup.expired("bucket", NOW, place, 3):
        assert len(page) <= 3
        seen += [output.id for output in page]
        place = Place.read(str(Place.of(page[-1])))
    assert seen == [*(output.id for output in outputs), later.id]


async def test_what_is_marked_is_due_no_longer_and_the_others_are(rows: Rows) -> None:
    gone, left = await rows.add(expires_at=BEFORE), await rows.add(expires_at=BEFORE)
    await rows.cleanup.mark_deleted([gone.id])
    assert await rows.due() == [left.id]
    assert await rows.deleted_at(left) is None


async def test_the_first_mark_stands(rows: Rows) -> None:
    output = await rows.add(expires_at=BEFORE)
    await rows.cleanup.mark_deleted([output.id])
    first = await rows.deleted_at(output)
    await rows.cleanup.mark_deleted([output.id])
    assert first is not None
    assert await rows.deleted_at(output) == first


async def test_many_who_mark_the_same_at_once_do_not_stand_in_each_others_way(rows: Rows) -> None:
    outputs = [await rows.add(expires_at=BEFORE) for _ in range(200)]
    ids = [output.id for output in outputs]
    await asyncio.gather(*(rows.cleanup.mark_deleted(ids[:: (-1) ** turn]) for turn in range(8)))
    assert await rows.due() == []


async def test_a_key_lives_while_its_output_is_not_marked_whether_or_not_it_is_due(rows: Rows) -> None:
    young, due = await rows.add(), await rows.add(expires_at=BEFORE)
    gone, elsewhere = await rows.add(expires_at=BEFORE), await rows.add(oss_bucket="another")
    await rows.cleanup.mark_deleted([gone.id])
    keys = [output.oss_key for output in (young, due, gone, elsewhere)]
    assert await rows.cleanup.living("bucket", [*keys, "users/nobody"]) == {young.oss_key, due.oss_key}
    assert await rows.cleanup.living("bucket", []) == set()


async def test_a_note_is_what_the_last_run_of_that_task_left(rows: Rows) -> None:
    assert await rows.cleanup.note("expired") is None
    for note in ("one", "two\n🦊"):
        await rows.cleanup.leave_note("expired", note)
        assert await rows.cleanup.note("expired") == note
    assert await rows.cleanup.note("orphans") is None
    for _ in range(2):
        await rows.cleanup.leave_note("expired", None)
        assert await rows.cleanup.note("expired") is None


async def test_a_path_is_known_by_the_latest_output_that_was_made_from_it(rows: Rows) -> None:
    await rows.add(source_file="/t/fox.png", created_at=BEFORE)
    await rows.add(source_file="/t/fox.png", created_at=NOW)
    await rows.add(source_file="/t/cat.png", created_at=BEFORE)
    await rows.add()
    paths = ["/t/cat.png", "/t/nobody's.png", "/t/fox.png", "/t/cat.png"]
    assert await rows.cleanup.uses_of(paths) == [FileUse(BEFORE), FileUse(), FileUse(NOW), FileUse(BEFORE)]
    assert await rows.cleanup.uses_of([]) == []


async def test_a_path_is_wanted_while_a_failure_that_names_it_is_unresolved(rows: Rows) -> None:
    event, path = samples.event(), "/t/fox.png"
    await rows.records.fail(samples.failure(Cause.of(event), source_file=path))
    assert await rows.cleanup.uses_of([path]) == [FileUse(None, is_wanted=True)]
    await rows.records.record(samples.output(event, source_file=path, created_at=NOW))
    assert await rows.cleanup.uses_of([path]) == [FileUse(NOW)]
    await rows.records.fail(samples.failure(Cause.of(samples.event()), source_file=path))
    assert await rows.cleanup.uses_of([path]) == [FileUse(NOW, is_wanted=True)]


@pytest.mark.parametrize("name", ["x" * 4000, "new\nline", "ü🦊", "%41", "'; --", "\\x41"])
async def test_a_path_may_be_long_and_strange(rows: Rows, name: str) -> None:
    await rows.add(source_file=f"/t/{name}", created_at=NOW)
    assert await rows.cleanup.uses_of([f"/t/{name}", "/t/A"]) == [FileUse(NOW), FileUse()]


async def test_a_path_that_is_no_utf_8_is_in_no_row_and_keeps_no_other_from_being_known(rows: Rows) -> None:
    await rows.add(source_file="/t/fox.png", created_at=NOW)
    assert await rows.cleanup.uses_of([os.fsdecode(b"/t/\xff.png"), "/t/fox.png"]) == [FileUse(), FileUse(NOW)]
