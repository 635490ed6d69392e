import asyncio

import pytest

from consumer.adapters.metrics import Metrics
from consumer.core.errors import DependencyError
from consumer.core.outcome import Hold, Outcome, Stored
from consumer.core.ports import Delivery
from consumer.core.records import Cause
from consumer.runtime.dispatch import Dispatch
from consumer.runtime.settle import Settle
from consumer.runtime.trial import MOST_CRASHES, Trial
from consumer.runtime.turns import Turns
from consumer.runtime.worker import Worker
from schemas.events import ImageGenerated
from schemas.reasons import Reason
from schemas.topology import rung_queue
from tests import samples
from tests.fakes import FakeBroker, FakeDelivery, FakeRecords, FakeSource, FakeStore, FakeTrials, Journal


class House:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.gate = asyncio.Event()
        self.started = asyncio.Event()
        self.records = FakeRecords()
        self.broker = FakeBroker()
        self.outcome: Outcome | None = None
        settle = Settle(self.records, self.broker, FakeSource(), FakeStore(), self.metrics, "worker-1")
        self.order = Journal()
        self.trials = FakeTrials(self.order)
        self.worker = Worker(
            Dispatch(self.handler, self.answers, 60, [5]),
            settle,
            Trial(self.trials, self.read_apart, Turns(), [5, 30]),
            self.metrics,
        )

    async def answers(self, _dependency: str) -> bool:
        return True

    async def read_apart(self, delivery: Delivery) -> Cause:
        return Cause("read apart", delivery.replays)

    async def handler(self, event: ImageGenerated, _cause: Cause) -> Outcome:
        self.order.step("the handler")
        self.started.set()
        await self.gate.wait()
        return self.outcome or Stored(samples.output(event))

    async def crash(self, delivery: FakeDelivery) -> None:
        """A worker has ended while it tried the delivery, and so has erased nothing."""
        async with Trial(trials := FakeTrials(), self.read_apart, Turns(), [5, 30]).of(delivery):
            self.trials.begun |= trials.begun

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"image_uploads_{name}", labels)


@pytest.fixture
def house() -> House:
    return House()


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


async def test_draining_waits_for_what_is_in_work_time_and_again() -> None:
    house = House()
    await house.worker.drain()
    for _ in range(2):
        task = asyncio.create_task(house.worker.take(FakeDelivery(samples.body())))
        await house.started.wait()
        assert not house.worker.is_idle()
        draining = asyncio.create_task(house.worker.drain())
        done, _pending = await asyncio.wait((draining,), timeout=0.01)
        assert not done
        house.gate.set()
        await draining
        assert house.worker.is_idle()
        await task
        house.gate.clear()
        house.started.clear()


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
    assert house.worker.is_idle()


SUSPECT = samples.body(id="suspect")


def suspect(body: bytes = SUSPECT) -> FakeDelivery:
    return FakeDelivery(body, is_suspect=True)


async def test_a_suspect_whose_tries_all_ended_is_tried_beside_the_others(house: House) -> None:
    first = asyncio.create_task(house.worker.take(FakeDelivery(samples.body())))
    await house.started.wait()
    house.started.clear()
    second = asyncio.create_task(house.worker.take(suspect()))
    await asyncio.wait_for(house.started.wait(), 30)
    house.gate.set()
    await asyncio.gather(first, second)
    assert house.order == ["the handler", "crashes", "begin", "the handler", "end"]


async def test_one_that_has_a_crash_waits_until_nothing_else_is_in_work_and_nothing_else_begins_beside_it(
    house: House,
) -> None:
    await house.crash(suspect())
    first = asyncio.create_task(house.worker.take(FakeDelivery(samples.body())))
    await house.started.wait()
    house.started.clear()
    alone = asyncio.create_task(house.worker.take(suspect()))
    while "crashes" not in house.order:  # noqa: ASYNC110 a journal tells nobody
        await asyncio.sleep(0)
    later = asyncio.create_task(house.worker.take(FakeDelivery(samples.body(id="later"))))
    await asyncio.sleep(0)
    assert not house.started.is_set()
    house.gate.set()
    await asyncio.gather(first, alone, later)
    assert house.order == ["the handler", "crashes", "begin", "the handler", "end", "the handler"]


async def test_the_note_of_a_trial_is_erased_whatever_becomes_of_it(house: House) -> None:
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


async def test_the_note_of_a_trial_is_erased_however_long_the_database_is_away(house: House) -> None:
    house.gate.set()
    house.trials.away = 3
    await house.worker.take(suspect())
    assert house.worker.is_idle()
    async with asyncio.timeout(10):
        while house.trials.begun:  # noqa: ASYNC110 a note tells nobody
            await asyncio.sleep(0.01)
    assert house.order == ["crashes", "begin", "the handler", "end"]


async def test_what_has_ended_too_many_workers_fails_unread_and_its_replay_is_tried_again(house: House) -> None:
    house.gate.set()
    killer = suspect(b"killer")
    for _ in range(MOST_CRASHES):
        await house.crash(killer)
    await house.worker.take(killer)
    assert killer.journal == ["ack"]
    assert not house.started.is_set()
    [failure] = house.records.failures.values()
    assert (failure.reason, failure.fingerprint) == (Reason.CRASH_LOOP, "read apart")

    for _ in range(MOST_CRASHES):
        await house.crash(suspect())
    replay = suspect()
    replay.replays = 1
    await house.worker.take(replay)
    assert house.started.is_set()


async def test_one_crash_fewer_fails_nothing(house: House) -> None:
    house.gate.set()
    for _ in range(MOST_CRASHES - 1):
        await house.crash(suspect())
    await house.worker.take(suspect())
    assert house.started.is_set()


@pytest.mark.parametrize("step", ["crashes", "begin"])
async def test_a_suspect_of_which_nothing_can_be_noted_is_held_and_keeps_nobody_waiting(
    house: House, step: str
) -> None:
    house.gate.set()
    await house.crash(suspect())
    house.trials.journal.trouble[step] = DependencyError("database", Reason.DATABASE_UNAVAILABLE, "away")
    house.trials.journal.trouble["end"] = DependencyError("database", Reason.DATABASE_UNAVAILABLE, "away")
    delivery = suspect()
    await house.worker.take(delivery)
    assert delivery.journal == ["ack"]
    assert not house.started.is_set()
    assert house.value("settled_total", outcome="held", reason="database_unavailable") == 1
    await house.worker.take(FakeDelivery(samples.body()))
    assert house.started.is_set()


async def test_what_comes_back_from_a_crash_waits_a_rung_longer_each_time_and_is_then_tried_alone(
    house: House,
) -> None:
    house.gate.set()
    waited = []
    for _ in range(3):
        await house.crash(suspect())
        returned = suspect()
        returned.is_returned = True
        await house.worker.take(returned)
        assert returned.journal == ["ack"]
        waited.append(sorted(house.broker.queues))
    assert not house.started.is_set()
    assert waited == [[rung_queue(5)], [rung_queue(30), rung_queue(5)], [rung_queue(30), rung_queue(5)]]
    assert {headers["x-suspect"] for copies in house.broker.queues.values() for _, headers in copies} == {1}
    await house.worker.take(suspect())
    assert house.started.is_set()


async def test_what_is_no_suspect_becomes_none_by_being_held(house: House) -> None:
    house.outcome = Hold(Reason.STORAGE_UNAVAILABLE, "away", 5)
    house.gate.set()
    await house.worker.take(FakeDelivery(samples.body()))
    [(_, headers)] = house.broker.queues[rung_queue(5)]
    assert headers == {"x-attempt": 1}


async def test_another_message_of_the_same_id_has_no_share_in_its_crashes(house: House) -> None:
    house.gate.set()
    for _ in range(MOST_CRASHES):
        await house.crash(suspect(b"killer"))
    await house.worker.take(suspect())
    assert house.started.is_set()


async def test_what_becomes_of_one_that_is_not_tried_waits_for_one_that_is_tried_alone(house: House) -> None:
    await house.crash(suspect())
    alone = asyncio.create_task(house.worker.take(suspect()))
    await house.started.wait()
    returned = suspect(samples.body(id="another"))
    returned.is_returned = True
    await house.crash(returned)
    held = asyncio.create_task(house.worker.take(returned))
    done, _ = await asyncio.wait((held,), timeout=0.01)
    assert not done
    assert returned.journal == []
    house.gate.set()
    await asyncio.gather(alone, held)
    assert returned.journal == ["ack"]
