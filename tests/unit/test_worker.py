import asyncio

import pytest

from consumer.adapters.metrics import Metrics
from consumer.core.outcome import Outcome, Stored
from consumer.core.records import Cause
from consumer.runtime.dispatch import Dispatch
from consumer.runtime.settle import Settle
from consumer.runtime.worker import Worker
from schemas.events import ImageGenerated
from tests import samples
from tests.fakes import FakeBroker, FakeDelivery, FakeRecords, FakeSource, FakeStore


class House:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.gate = asyncio.Event()
        self.started = asyncio.Event()
        settle = Settle(FakeRecords(), FakeBroker(), FakeSource(), FakeStore(), self.metrics, "worker-1")
        self.worker = Worker(Dispatch(self.handler, 60, [5]), settle, self.metrics)

    async def handler(self, event: ImageGenerated, _cause: Cause) -> Outcome:
        self.started.set()
        await self.gate.wait()
        return Stored(samples.output(event))

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
