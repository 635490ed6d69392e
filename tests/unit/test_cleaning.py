"""Run, announce, arm, ack: the order is the promise; every crash between two of them is a refused step here."""

import asyncio
from datetime import UTC, datetime

import pytest

from consumer.core.announcements import cleaned
from consumer.core.errors import BrokerError
from consumer.runtime import cleaning
from consumer.runtime.cleaning import Cleaning
from schemas.events import CleanupCompleted, CleanupCompletedData, CleanupRequested
from tests.fakes import FakeBroker, FakeCleanupDelivery, FakeCleanupMeter, FakeSchedule, Journal

REQUEST = CleanupRequested(id="now", source="/operators/test", time=datetime.now(UTC))


class House:
    def __init__(self) -> None:
        self.journal = Journal()
        self.broker = FakeBroker(self.journal)
        self.meter = FakeCleanupMeter()

    async def clean_up(self, request: CleanupRequested) -> CleanupCompleted:
        self.journal.step("clean up")
        data = CleanupCompletedData(cause_id=request.id, tasks={}, duration_s=0, dry_run=False, errors=())
        return cleaned(request, data, datetime.now(UTC))

    async def take(self, body: bytes | None = None, *, is_tick: bool = False, is_scheduled: bool = True) -> list[str]:
        delivery = FakeCleanupDelivery(REQUEST.body() if body is None else body, self.journal, is_tick=is_tick)
        schedule = FakeSchedule(self.journal)
        await Cleaning(self.clean_up, self.broker, schedule, self.meter, is_scheduled).take(delivery)
        return self.journal


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(cleaning, "_PAUSE_S", 0)
    return House()


@pytest.mark.parametrize("is_tick", [True, False])
async def test_after_the_run_its_end_is_announced_then_the_next_tick_armed_then_this_one_acked(
    house: House, *, is_tick: bool
) -> None:
    assert await house.take(is_tick=is_tick) == ["clean up", "announce completed", "arm", "ack"]
    (news,) = house.broker.announced
    assert isinstance(news, CleanupCompleted)
    assert news.data.cause_id == REQUEST.id


async def test_a_tick_from_before_the_schedule_was_turned_off_is_dropped(house: House) -> None:
    assert await house.take(is_tick=True, is_scheduled=False) == ["ack"]


async def test_a_request_is_heeded_though_the_schedule_is_off(house: House) -> None:
    assert "clean up" in await house.take(is_scheduled=False)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", REQUEST.body().replace(b'"expired"', b'"everything"')])
async def test_what_is_no_request_is_acked_and_the_schedule_goes_on(house: House, body: bytes) -> None:
    assert await house.take(body) == ["arm", "ack"]
    assert house.meter.ended == ["refused"]


async def test_a_schedule_that_cannot_be_armed_now_is_left_to_whoever_arms_it_next(house: House) -> None:
    house.journal.trouble["arm"] = BrokerError("no queue to hold a tick")
    assert await house.take() == ["clean up", "announce completed", "ack"]


async def test_an_end_that_is_not_confirmed_is_announced_until_it_is(house: House) -> None:
    house.journal.trouble["announce completed"] = BrokerError("away")
    assert await house.take() == ["clean up", "announce completed", "arm", "ack"]


@pytest.mark.parametrize("step", ["clean up", "announce completed", "arm", "ack"])
async def test_a_worker_that_stops_in_any_step_has_not_acked(house: House, step: str) -> None:
    house.journal.trouble[step] = asyncio.CancelledError()  # type: ignore[assignment]  # which stops it for good
    with pytest.raises(asyncio.CancelledError):
        await house.take()
    assert "ack" not in house.journal
