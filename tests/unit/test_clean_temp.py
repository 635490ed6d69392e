"""Which files the cleanup takes from TEMP_DIR, and which it leaves to whoever may still ask for them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer.core.cleanup import Run, Tally
from consumer.core.errors import BrokerError, DependencyError
from consumer.core.ports import FoundFile
from consumer.core.records import Cause
from consumer.handlers.clean_temp import CleanTemp
from schemas.reasons import Reason
from tests import samples
from tests.fakes import FakeBacklog, FakeCleanupRecords, FakeTempDir

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
MAX_AGE = 24 * HOUR
LONGEST_TRY = timedelta(minutes=5)


class House:
    def __init__(self, *files: FoundFile) -> None:
        self.temp_dir = FakeTempDir(*files)
        self.cleanup = FakeCleanupRecords()
        self.records = self.cleanup.records
        self.backlog = FakeBacklog()
        self.task = CleanTemp(self.temp_dir, self.cleanup, self.backlog, MAX_AGE, LONGEST_TRY)

    async def run(self, now: datetime = NOW, *, is_rehearsal: bool = False, batches: int = 1000) -> Tally:
        left = iter(range(batches))
        tally = Tally()
        await self.task(Run(now, is_rehearsal, is_over=lambda: next(left, None) is None), tally)
        return tally

    async def quiet(self, now: datetime = NOW) -> None:
        """A look an hour before that time saw nothing waiting."""
        await self.cleanup.leave_note("temp", (now - HOUR).isoformat())

    @property
    def left(self) -> set[str]:
        return set(self.temp_dir.files)


def file(path: str, age: timedelta, *, is_part: bool = False, size_bytes: int = 3) -> FoundFile:
    return FoundFile(path, size_bytes, NOW - age, is_part)


async def stored(house: House, path: str, at: datetime, **changes: Any) -> None:
    await house.records.record(samples.output(samples.event(), source_file=path, created_at=at, **changes))


async def failed(house: House, path: str) -> None:
    await house.records.fail(samples.failure(Cause.of(samples.event()), source_file=path))


async def test_what_a_crash_left_half_written_goes_after_an_hour_whatever_waits() -> None:
    house = House(file("/t/old", HOUR, is_part=True), file("/t/young", HOUR - SECOND, is_part=True))
    house.backlog.waiting = 7
    tally = await house.run()
    assert (house.left, tally.count, tally.size_bytes, tally.skipped) == ({"/t/young"}, 1, 3, None)


async def test_the_file_of_an_event_that_is_stored_goes_whatever_waits() -> None:
    house = House(file("/t/fox", 2 * SECOND), file("/t/cat", 2 * SECOND))
    await stored(house, "/t/fox", NOW - SECOND)
    house.backlog.waiting = 7
    tally = await house.run()
    assert (house.left, tally.count, tally.errors) == ({"/t/cat"}, 1, [])


async def test_a_file_that_changed_after_its_name_was_stored_is_another_ones() -> None:
    house = House(file("/t/fox", SECOND))
    await stored(house, "/t/fox", NOW - SECOND)
    await house.run()
    assert house.left == {"/t/fox"}


async def test_a_file_that_an_unresolved_failure_names_stays_however_old_it_is() -> None:
    house = House(file("/t/failed", 99 * MAX_AGE), file("/t/both", 99 * MAX_AGE))
    await failed(house, "/t/failed")
    await stored(house, "/t/both", NOW)
    await failed(house, "/t/both")
    await house.quiet()
    tally = await house.run()
    assert (house.left, tally.count, tally.skipped) == ({"/t/failed", "/t/both"}, 0, None)


async def test_other_files_go_when_they_were_old_at_the_first_of_two_looks_at_an_empty_backlog() -> None:
    house = House(
        file("/t/old", MAX_AGE + HOUR),
        file("/t/old since", MAX_AGE + HOUR - SECOND),
        file("/t/young", MAX_AGE - SECOND),
    )
    await house.quiet()
    tally = await house.run()
    assert (house.left, tally.count, tally.skipped) == ({"/t/old since", "/t/young"}, 1, None)
    tally = await house.run(NOW + HOUR)
    assert (house.left, tally.count, tally.skipped) == ({"/t/young"}, 1, None)


async def test_one_look_at_an_empty_backlog_is_not_enough() -> None:
    house = House(file("/t/old", 9 * MAX_AGE))
    first = await house.run()
    assert (house.left, first.count, first.skipped) == ({"/t/old"}, 0, "second look")
    second = await house.run(NOW + LONGEST_TRY)
    assert (house.left, second.count, second.skipped) == (set(), 1, None)


async def test_what_was_in_work_at_the_first_look_has_ended_at_the_second() -> None:
    house = House(file("/t/old", 9 * MAX_AGE))
    for after in (timedelta(0), SECOND, LONGEST_TRY - SECOND):
        assert (await house.run(NOW + after)).skipped == "second look"
    assert (await house.run(NOW + LONGEST_TRY)).count == 1


@pytest.mark.parametrize("waits_at", [0, 1, 2])
async def test_a_backlog_at_any_look_begins_anew(waits_at: int) -> None:
    house = House()
    for look in range(2):
        house.backlog.waiting = int(look == waits_at)
        await house.run(NOW + look * HOUR)
    house.temp_dir.files["/t/old"] = file("/t/old", 9 * MAX_AGE)
    house.backlog.waiting = int(waits_at == 2)
    tally = await house.run(NOW + 2 * HOUR)
    expected = {0: (set[str](), None), 1: ({"/t/old"}, "second look"), 2: ({"/t/old"}, "backlog")}
    assert (house.left, tally.skipped) == expected[waits_at]


async def test_what_was_published_while_no_worker_ran_waits_for_it_though_the_last_look_was_long_ago() -> None:
    """A look of three days ago says nothing of a file of two days ago."""
    house = House(file("/t/waiting", 2 * MAX_AGE), file("/t/abandoned", 4 * MAX_AGE))
    await house.cleanup.leave_note("temp", (NOW - 3 * MAX_AGE).isoformat())
    assert (await house.run()).count == 1
    assert house.left == {"/t/waiting"}


async def test_a_broker_that_cannot_be_asked_begins_anew_and_nothing_goes() -> None:
    house = House(file("/t/old", 9 * MAX_AGE), file("/t/part", MAX_AGE, is_part=True))
    await house.quiet()
    house.backlog.journal.trouble["backlog"] = BrokerError("away")
    with pytest.raises(BrokerError):
        await house.run()
    assert await house.cleanup.note("temp") is None
    assert (await house.run()).count == 1
    assert house.left == {"/t/old"}


async def test_rows_that_cannot_be_asked_keep_every_file() -> None:
    house = House(file("/t/old", 9 * MAX_AGE), file("/t/part", MAX_AGE, is_part=True))
    await house.quiet()
    house.cleanup.journal.trouble["uses"] = DependencyError("database", Reason.DATABASE_UNAVAILABLE, "away")
    with pytest.raises(DependencyError):
        await house.run()
    assert len(house.left) == 2


@pytest.mark.parametrize("quiet", [False, True])
async def test_a_rehearsal_changes_nothing_and_counts_what_the_next_run_removes(*, quiet: bool) -> None:
    house = House(
        file("/t/old", 9 * MAX_AGE, size_bytes=1),
        file("/t/part", 2 * HOUR, is_part=True, size_bytes=10),
        file("/t/stored", 2 * HOUR, size_bytes=100),
        file("/t/failed", 9 * MAX_AGE, size_bytes=1000),
        file("/t/young", HOUR, size_bytes=10000),
    )
    await stored(house, "/t/stored", NOW - HOUR)
    await failed(house, "/t/failed")
    if quiet:
        await house.quiet()
    before, note = house.left, await house.cleanup.note("temp")
    rehearsed = await house.run(is_rehearsal=True)
    assert (house.left, await house.cleanup.note("temp")) == (before, note)
    assert "remove" not in house.temp_dir.journal
    real = await house.run()
    assert real == rehearsed
    assert (real.count, real.size_bytes) == ((3, 111) if quiet else (2, 110))


async def test_a_file_that_changed_since_it_was_found_is_neither_counted_nor_complained_of() -> None:
    house = House(file("/t/grown", 9 * MAX_AGE), file("/t/old", 9 * MAX_AGE))
    house.temp_dir.grown = {"/t/grown"}
    await house.quiet()
    tally = await house.run()
    assert (house.left, tally.count, tally.errors) == ({"/t/grown"}, 1, [])


async def test_files_that_cannot_be_removed_are_complained_of_and_not_counted() -> None:
    house = House(file("/t/one", 9 * MAX_AGE), file("/t/two", 9 * MAX_AGE), file("/t/old", 9 * MAX_AGE))
    house.temp_dir.stubborn = {"/t/one", "/t/two"}
    await house.quiet()
    tally = await house.run()
    assert (tally.count, tally.errors) == (
        1,
        ["2 files could not be removed, such as /t/one: Permission denied"],
    )


async def test_a_run_whose_time_is_up_stops_between_two_batches_and_the_next_goes_on() -> None:
    house = House(*(file(f"/t/{number}", 9 * MAX_AGE) for number in range(10)))
    house.temp_dir.batch = 3
    await house.quiet()
    first = await house.run(batches=2)
    assert (first.count, first.is_complete, len(house.left)) == (6, False, 4)
    second = await house.run(NOW + HOUR)
    assert (second.count, second.is_complete, house.left) == (4, True, set())


async def test_each_batch_is_one_question_to_the_rows() -> None:
    house = House(*(file(f"/t/{number}", SECOND) for number in range(2500)))
    await house.run()
    asked: Sequence[str] = house.cleanup.journal
    assert asked.count("uses") == 3
