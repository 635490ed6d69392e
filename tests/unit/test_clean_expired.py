"""Object, announcement, mark: the order is the promise; every crash between two of them is a refused step here."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer.core.announcements import expired
from consumer.core.cleanup import Place, Run, Tally
from consumer.core.errors import BrokerError, DependencyError, UploadError
from consumer.core.records import Output
from consumer.handlers.clean_expired import CleanExpired
from schemas.reasons import Reason
from tests import samples
from tests.fakes import FakeBroker, FakeCleanupRecords, FakeRecords, FakeStore, Journal

NOW = datetime.now(UTC) - timedelta(hours=1)
BEFORE = NOW - timedelta(days=1)
NO_STORE = DependencyError("storage", Reason.STORAGE_UNAVAILABLE, "503")
NO_ROWS = DependencyError("database", Reason.DATABASE_UNAVAILABLE, "down")


class House:
    def __init__(self) -> None:
        self.journal = Journal()
        self.store = FakeStore(self.journal)
        self.records = FakeRecords(self.journal)
        self.cleanup = FakeCleanupRecords(self.journal, self.records)
        self.broker = FakeBroker(self.journal)
        self.task = CleanExpired(self.store, self.cleanup, self.broker)

    def add(self, count: int = 1, **changes: Any) -> list[Output]:
        """Outputs with their objects, due a day ago."""
        outputs = []
        for _ in range(count):
            event = samples.event()
            values = {"oss_bucket": self.store.bucket, "expires_at": BEFORE, "size_bytes": 7}
            output = samples.output(event, **(values | changes))
            self.records.outputs[event.source, event.id] = output
            self.store.objects[output.oss_key] = b"PNG fox"
            outputs.append(output)
        return outputs

    async def run(self, *, is_rehearsal: bool = False, batches: int = 1_000_000) -> Tally:
        """One run, whose time is up after so many batches."""
        asked = iter(range(batches))
        tally = Tally()
        await self.task(Run(NOW, is_rehearsal, lambda: next(asked, None) is None), tally)
        return tally

    def is_gone(self, outputs: Iterable[Output]) -> bool:
        outputs = list(outputs)
        gone = [output.id in self.cleanup.deleted for output in outputs]
        assert gone == [output.oss_key not in self.store.objects for output in outputs]
        return all(gone)


@pytest.fixture
def house() -> House:
    return House()


async def test_the_object_goes_then_the_world_hears_of_it_then_the_row_is_marked(house: House) -> None:
    (output,) = house.add()
    tally = await house.run()
    assert house.journal == ["expired", "delete many", "announce expired", "mark", "expired"]
    assert house.broker.announced == [expired(output)]
    assert house.is_gone([output])
    assert (tally.count, tally.size_bytes, tally.is_complete, tally.errors) == (1, 7, True, [])
    assert (output.event_source, output.event_id) in house.records.outputs  # a row is never removed


async def test_where_nothing_is_due_nothing_happens(house: House) -> None:
    house.add(expires_at=None)
    house.add(expires_at=NOW + timedelta(microseconds=1))
    house.add(oss_bucket="another")
    tally = await house.run()
    assert house.journal == ["expired"]
    assert (tally.count, tally.is_complete) == (0, True)
    assert len(house.store.objects) == 3


@pytest.mark.parametrize(
    ("step", "trouble"),
    [("delete many", NO_STORE), ("announce expired", BrokerError("refused")), ("mark", NO_ROWS)],
)
async def test_a_step_that_is_refused_leaves_the_rows_unmarked_and_the_next_run_makes_up_for_it(
    house: House, step: str, trouble: Exception
) -> None:
    outputs = house.add(3)
    house.journal.trouble[step] = trouble
    with pytest.raises((UploadError, BrokerError)) as caught:  # each as it is: within a group it would be a defect
        await house.run()
    assert caught.value is trouble
    assert house.cleanup.deleted == {}
    await house.run()
    assert house.is_gone(outputs)
    copies = Counter(event.body() for event in house.broker.announced)
    assert set(copies) == {expired(output).body() for output in outputs}


async def test_nothing_is_announced_or_marked_that_the_store_has_not_deleted(house: House) -> None:
    kept, *others = house.add(3)
    house.store.kept.add(kept.oss_key)
    tally = await house.run()
    assert house.is_gone(others)
    assert kept.id not in house.cleanup.deleted
    assert kept.oss_key in house.store.objects
    assert {event.data.output_id for event in house.broker.announced} == {output.id for output in others}
    assert tally.count == 2
    assert tally.errors == [f"OSS did not delete 1 objects, such as {kept.oss_key}"]


async def test_what_the_store_keeps_is_tried_once_in_a_run_and_again_in_the_next(house: House) -> None:
    (kept,) = house.add()
    house.store.kept.add(kept.oss_key)
    await house.run()
    assert house.journal.count("delete many") == 1
    house.store.kept.clear()
    await house.run()
    assert house.is_gone([kept])


@pytest.mark.parametrize("position", [0, 3, 6])
async def test_a_key_that_the_store_takes_for_none_stands_in_nobodys_way(house: House, position: int) -> None:
    times = [BEFORE + timedelta(hours=hour) for hour in range(7)]
    outputs = [house.add(expires_at=time)[0] for time in times if time != times[position]]
    (odd,) = house.add(expires_at=times[position], oss_key="/no-key")
    tally = await house.run()
    assert house.is_gone(outputs)
    assert odd.id not in house.cleanup.deleted
    assert tally.errors == ["OSS did not delete 1 objects, such as /no-key"]


async def test_thousands_go_a_thousand_at_a_time(house: House) -> None:
    outputs = house.add(2500)
    tally = await house.run()
    assert house.is_gone(outputs)
    assert house.journal.count("delete many") == 3
    assert (tally.count, tally.size_bytes) == (2500, 2500 * 7)
    assert len(house.broker.announced) == 2500


async def test_when_the_time_is_up_the_next_run_goes_on_behind_and_the_one_after_begins_anew(house: House) -> None:
    outputs = house.add(2500)
    house.store.kept |= {output.oss_key for output in outputs}  # so that a run that began anew would be seen
    first = await house.run(batches=2)
    assert not first.is_complete
    behind = sorted(outputs, key=lambda output: output.id)[1999]
    assert house.cleanup.notes == {"expired": str(Place.of(behind))}
    house.store.kept.clear()
    second = await house.run()
    assert (second.count, second.is_complete) == (500, True)
    assert house.cleanup.notes == {}
    assert (await house.run()).count == 2000
    assert house.is_gone(outputs)


async def test_a_rehearsal_changes_nothing_and_counts_what_the_next_run_removes(house: House) -> None:
    outputs = house.add(1500)
    rehearsed = await house.run(is_rehearsal=True)
    assert set(house.journal) == {"expired"}
    assert len(house.store.objects) == len(outputs)
    removed = await house.run()
    assert (rehearsed.count, rehearsed.size_bytes) == (removed.count, removed.size_bytes) == (1500, 1500 * 7)


async def test_a_rehearsal_begins_where_the_next_run_does_and_leaves_its_note(house: House) -> None:
    house.add(1500)
    await house.run(batches=1)
    note = dict(house.cleanup.notes)
    rehearsed = await house.run(is_rehearsal=True)
    assert house.cleanup.notes == note
    await house.run(is_rehearsal=True, batches=0)
    assert house.cleanup.notes == note
    assert rehearsed.count == (await house.run()).count == 500


async def test_two_workers_at_once_do_the_same_as_one(house: House) -> None:
    outputs = house.add(1500)
    await asyncio.gather(house.run(), house.run())
    assert house.is_gone(outputs)
    ids = {event.id for event in house.broker.announced}
    assert ids == {expired(output).id for output in outputs}
