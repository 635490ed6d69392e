import asyncio
from contextlib import AsyncExitStack

import pytest

from consumer.adapters import host_turns
from consumer.adapters.host_turns import HostTurns
from consumer.core.errors import BusyError

SHARE = 3


@pytest.fixture
def turns() -> HostTurns:
    return HostTurns(SHARE, timeout_s=60, patience_s=0.01)


class Clock:
    """Says what a test wants."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(host_turns, "time", clock)
    return clock


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is a prompt one."""
    monkeypatch.setattr(host_turns, "_PROMPT_S", 0)


async def fetches(turns: HostTurns, host: str, count: int) -> AsyncExitStack:
    stack = AsyncExitStack()
    for _ in range(count):
        await stack.enter_async_context(turns.of(host))
    return stack


async def test_a_host_that_does_not_answer_gets_its_share_and_others_are_not_concerned(turns: HostTurns) -> None:
    bad = await fetches(turns, "bad.test", SHARE)
    with pytest.raises(BusyError, match=r"3 fetches from bad\.test") as caught:
        await fetches(turns, "bad.test", 1)
    assert caught.value.not_before_s == 60
    with pytest.raises(BusyError):
        await fetches(turns, "bad.test", 1)
    good = await fetches(turns, "good.test", SHARE)
    await good.aclose()
    await bad.aclose()


async def test_each_prompt_answer_of_a_host_makes_room_for_one_more(turns: HostTurns) -> None:
    under_way = await fetches(turns, "good.test", 1)
    for _ in range(10):
        async with turns.of("good.test"):
            pass
    more = await fetches(turns, "good.test", SHARE + 10 - 1)
    with pytest.raises(BusyError):
        await fetches(turns, "good.test", 1)
    await more.aclose()
    await under_way.aclose()


async def test_a_fetch_that_takes_long_takes_the_room_back(clock: Clock) -> None:
    turns = HostTurns(SHARE, timeout_s=60, patience_s=0)
    slow = await fetches(turns, "uneven.test", SHARE - 1)
    for _ in range(10):
        async with turns.of("uneven.test"):
            pass
    clock.now += 6
    last = await fetches(turns, "uneven.test", 1)
    with pytest.raises(BusyError):
        await fetches(turns, "uneven.test", 1)
    await last.aclose()
    await slow.aclose()


async def test_who_waits_is_patient_as_long_as_the_host_answers(clock: Clock) -> None:
    turns = HostTurns(1, timeout_s=60, patience_s=3)
    fetching = await fetches(turns, "slowish.test", 1)
    waiting = [asyncio.create_task(fetches(turns, "slowish.test", 1)) for _ in range(2)]
    await asyncio.sleep(0)
    clock.now += 2
    await fetching.aclose()  # makes room for two
    for stack in await asyncio.gather(*waiting):
        await stack.aclose()


async def test_who_waits_for_a_host_goes_on_with_its_first_answer() -> None:
    turns = HostTurns(SHARE, timeout_s=60, patience_s=60)
    bad = await fetches(turns, "new.test", SHARE - 1)
    answering = await fetches(turns, "new.test", 1)
    waiting = [asyncio.create_task(fetches(turns, "new.test", 1)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    await answering.aclose()
    for stack in await asyncio.gather(*waiting):
        await stack.aclose()
    await bad.aclose()


@pytest.mark.usefixtures("_slow")
async def test_the_end_of_a_slow_fetch_makes_room_for_one(turns: HostTurns) -> None:
    bad = await fetches(turns, "bad.test", SHARE - 1)
    last = await fetches(turns, "bad.test", 1)
    patient = asyncio.create_task(fetches(turns, "bad.test", 1))
    await asyncio.sleep(0)
    await last.aclose()
    await (await patient).aclose()
    await bad.aclose()


async def test_nothing_is_remembered_of_a_host_that_nobody_is_interested_in(turns: HostTurns) -> None:
    bad = await fetches(turns, "bad.test", SHARE)
    with pytest.raises(BusyError):
        await fetches(turns, "bad.test", 1)
    await bad.aclose()
    assert turns._hosts == {}


async def test_a_fetch_that_is_given_up_is_no_answer_however_soon(clock: Clock) -> None:
    turns = HostTurns(1, timeout_s=2, patience_s=0)
    given_up = await fetches(turns, "bad.test", 1)
    clock.now += 2
    await given_up.aclose()
    bad = await fetches(turns, "bad.test", 1)
    with pytest.raises(BusyError):
        await fetches(turns, "bad.test", 1)
    await bad.aclose()


async def test_a_fetch_that_goes_wrong_makes_room(turns: HostTurns) -> None:
    others = await fetches(turns, "bad.test", SHARE - 1)
    with pytest.raises(ConnectionError):
        async with turns.of("bad.test"):
            raise ConnectionError("reset")
    await (await fetches(turns, "bad.test", 1)).aclose()
    await others.aclose()
