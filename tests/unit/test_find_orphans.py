from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from consumer.core.cleanup import Run, Tally
from consumer.core.errors import DependencyError
from consumer.handlers.find_orphans import FindOrphans
from schemas.reasons import Reason
from tests import samples
from tests.fakes import FakeCleanupRecords, FakeRecords, FakeStore, Journal

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
GRACE = timedelta(hours=24)
OLD = NOW - GRACE


class House:
    def __init__(self) -> None:
        self.journal = Journal()
        self.store = FakeStore(self.journal)
        self.records = FakeRecords(self.journal)
        self.cleanup = FakeCleanupRecords(self.journal, self.records)
        self.task = FindOrphans(self.store, self.cleanup, GRACE)
        self.numbers = count()

    def add(self, key: str | None = None, modified_at: datetime = OLD) -> str:
        """An object, by a key of ours unless another is given."""
        key = key or f"users/u/jobs/j/image-{next(self.numbers)}-0123456789abcdef.png"
        self.store.objects[key] = b"PNG fox"
        self.store.modified_at[key] = modified_at
        return key

    def name(self, key: str, **changes: Any) -> None:
        """A row names the object."""
        event = samples.event()
        values = {"oss_bucket": self.store.bucket, "oss_key": key}
        self.records.outputs[event.source, event.id] = samples.output(event, **(values | changes))

    async def run(self, *, is_rehearsal: bool = False, pages: int = 1_000_000) -> Tally:
        """One run, whose time is up after so many pages."""
        asked = iter(range(pages - 1))
        tally = Tally()
        await self.task(Run(NOW, is_rehearsal, lambda: next(asked, None) is None), tally)
        return tally


@pytest.fixture
def house() -> House:
    return House()


async def test_an_old_object_of_ours_without_a_row_is_counted_sized_and_listed_and_left_alone(house: House) -> None:
    key = house.add()
    tally = await house.run()
    assert (tally.count, tally.size_bytes, tally.keys, tally.is_complete) == (1, 7, [key], True)
    assert key in house.store.objects
    assert set(house.journal) == {"list", "living"}


async def test_an_object_that_a_row_names_is_no_orphan_whether_or_not_it_is_due(house: House) -> None:
    house.name(house.add())
    house.name(house.add(), expires_at=OLD)
    assert (await house.run()).count == 0


async def test_an_object_is_an_orphan_if_its_row_is_marked_deleted_or_is_another_buckets(house: House) -> None:
    back, elsewhere = house.add(), house.add()
    house.name(back, expires_at=OLD)
    await house.cleanup.mark_deleted([output.id for output in house.records.outputs.values()])
    house.name(elsewhere, oss_bucket="another")
    assert (await house.run()).keys == sorted([back, elsewhere])


async def test_an_object_whose_row_may_still_come_is_no_orphan(house: House) -> None:
    house.add(modified_at=OLD + timedelta(microseconds=1))
    assert (await house.run()).count == 0


async def test_what_others_put_under_the_prefix_is_no_orphan(house: House) -> None:
    house.add("users/.image-uploads/probe")
    house.add("users/u/jobs/j/image-1.png")
    house.add("users/u/avatar.png")
    assert (await house.run()).count == 0


@pytest.mark.parametrize("total", [999, 1000, 1001, 2500])
async def test_every_page_is_looked_through(house: House, total: int) -> None:
    for _ in range(total):
        house.add()
    tally = await house.run()
    assert (tally.count, len(tally.keys), tally.is_complete) == (total, 100, True)


async def test_when_the_time_is_up_the_next_run_goes_on_behind_and_the_one_after_begins_anew(house: House) -> None:
    for _ in range(2500):
        house.add()
    first = await house.run(pages=2)
    assert (first.count, first.is_complete) == (2000, False)
    second = await house.run()
    assert (second.count, second.is_complete) == (500, True)
    assert house.cleanup.notes == {}
    assert (await house.run()).count == 2500


async def test_a_rehearsal_finds_the_same_and_leaves_no_note(house: House) -> None:
    for _ in range(1500):
        house.add()
    assert (await house.run(is_rehearsal=True)).count == (await house.run()).count == 1500
    await house.run(is_rehearsal=True, pages=1)
    assert house.cleanup.notes == {}
    await house.run(pages=1)
    assert (await house.run(is_rehearsal=True)).count == (await house.run()).count == 500


async def test_a_bucket_that_may_not_be_listed_is_told_and_the_next_run_goes_on_from_the_same_place(
    house: House,
) -> None:
    for _ in range(1500):
        house.add()
    await house.run(pages=1)
    note = dict(house.cleanup.notes)
    house.journal.trouble["list"] = DependencyError("storage", Reason.STORAGE_REFUSED, "AccessDenied")
    with pytest.raises(DependencyError):
        await house.run()
    assert house.cleanup.notes == note
