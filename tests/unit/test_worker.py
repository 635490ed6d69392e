import asyncio

import pytest

from consumer.adapters.metrics import Metrics
from consumer.core.errors import DependencyError
from consumer.core.outcome import Outcome, Stored
from consumer.core.ports import Delivery
from consumer.core.records import Cause
from consumer.runtime.dispatch import Dispatch
from consumer.runtime.settle import Settle
from consumer.runtime.trial import MOST_CRASHES, Trial
from consumer.runtime.worker import Worker
from schemas.events import ImageGenerated
from schemas.reasons import Reason
from tests import samples
from tests.fakes import FakeBroker, FakeDelivery, FakeRecords, FakeSource, FakeStore, FakeTrials, Journal


class House:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.gate = asyncio.Event()
        self.started = asyncio.Event()
        self.records = FakeRecords()
        settle = Settle(self.records, FakeBroker(), FakeSource(), FakeStore(), self.metrics, "worker-1")
        self.order = Journal()
        self.trials = FakeTrials(self.order)
        self.worker = Worker(
            Dispatch(self.handler, self.answers, 60, [5]), settle, Trial(self.trials, self.read_apart), self.metrics
        )

    async def answers(self, _dependency: str) -> bool:
        return True

    async def read_apart(self, delivery: Delivery) -> Cause:
        return Cause("read apart", delivery.replays)

    async def handler(self, event: ImageGenerated, _cause: Cause) -> Outcome:
        self.order.step("the handler")
        self.started.set()
        await self.gate.wait()
        return Stored(samples.output(event))

    async def note_of(self, delivery: FakeDelivery) -> str:
        async with Trial(trials := FakeTrials(), self.read_apart).of(delivery):
            return next(iter(trials.begun))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"image_uploads_{name}", labels)


async def test_a_delivery_is_counted_while_it_is_in_work_and_by_its_outcome_afterwards() -> None:
    house = House()
    delivery = FakeDelivery(samples.body())
    task = asyncio.create_task(house.worker.take(delivery))
    await house.started.wait()
    assert house.value("in_flight") == 1
    assert (house.value("oldest_in_flight_seconds") or 0) > 0
    house.gate.set()
    await task
    assert delivery.journal == ["ack"]
    assert house.value("in_flight") == 0
    assert house.value("received_total") == 1
    assert house.value("settled_total", outcome="stored", reason="") == 1
    assert house.value("stored_bytes_total") == 3
    assert house.value("age_seconds_count") == 1
    assert (house.value("last_stored_timestamp_seconds") or 0) > 1_700_000_000


async def test_draining_waits_for_what_is_in_work_and_says_when_that_took_too_long() -> None:
    house = House()
    assert await house.worker.drain(0.01)
    task = asyncio.create_task(house.worker.take(FakeDelivery(samples.body())))
    await house.started.wait()
    assert not await house.worker.drain(0.01)
    draining = asyncio.create_task(house.worker.drain(60))
    house.gate.set()
    assert await draining
    await task

    house.gate.clear()
    house.started.clear()
    again = asyncio.create_task(house.worker.take(FakeDelivery(samples.body())))
    await house.started.wait()
    assert not await house.worker.drain(0.01)
    house.gate.set()
    await again


async def test_a_delivery_whose_connection_is_lost_is_dropped_without_an_ack() -> None:
    house = House()
    delivery = FakeDelivery(samples.body())
    task = asyncio.create_task(house.worker.take(delivery))
    await house.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert delivery.journal == []
    assert house.value("in_flight") == 0
    assert await house.worker.drain(0.01)


def suspect(body: bytes = b"") -> FakeDelivery:
    return FakeDelivery(body or samples.body(), is_suspect=True)


async def test_a_suspect_waits_until_nothing_else_is_in_work_and_nothing_else_begins_beside_it() -> None:
    house = House()
    first = asyncio.create_task(house.worker.take(FakeDelivery(samples.body())))
    await house.started.wait()
    house.started.clear()
    alone = asyncio.create_task(house.worker.take(suspect()))
    later = asyncio.create_task(house.worker.take(FakeDelivery(samples.body(id="later"))))
    await asyncio.sleep(0)
    assert not house.started.is_set()
    house.gate.set()
    await first
    await alone
    await later
    assert house.order == ["the handler", "begin", "the handler", "end", "the handler"]


async def test_the_note_of_a_trial_is_erased_whatever_becomes_of_it() -> None:
    house = House()
    house.gate.set()
    await house.worker.take(suspect())
    assert not house.trials.begun

    house.gate.clear()
    house.started.clear()
    lost = asyncio.create_task(house.worker.take(suspect()))
    await house.started.wait()
    assert house.trials.begun
    lost.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lost
    assert not house.trials.begun


async def test_what_has_ended_too_many_workers_fails_unread_and_its_replay_is_tried_again() -> None:
    house = House()
    house.gate.set()
    for _ in range(MOST_CRASHES):  # a worker that ends erases nothing
        await house.trials.begin(await house.note_of(suspect(b"killer")))
    delivery = suspect(b"killer")
    await house.worker.take(delivery)
    assert delivery.journal == ["ack"]
    assert not house.started.is_set()
    [failure] = house.records.failures.values()
    assert (failure.reason, failure.fingerprint) == (Reason.CRASH_LOOP, "read apart")
    assert not house.trials.begun

    for _ in range(MOST_CRASHES):
        await house.trials.begin(await house.note_of(suspect()))
    replay = suspect()
    replay.replays = 1
    await house.worker.take(replay)
    assert house.started.is_set()


async def test_a_suspect_waits_for_its_note_when_the_database_is_away() -> None:
    house = House()
    house.gate.set()
    house.trials.journal.trouble["begin"] = DependencyError("database", Reason.DATABASE_UNAVAILABLE, "away")
    house.trials.journal.trouble["end"] = DependencyError("database", Reason.DATABASE_UNAVAILABLE, "away")
    delivery = suspect()
    await house.worker.take(delivery)
    assert delivery.journal == ["ack"]
    assert house.order == ["begin", "the handler"]
