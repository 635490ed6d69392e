import asyncio

import pytest

from consumer.runtime.stop import Stop

LONG_S = 10**6  # after it, the process would end


async def test_the_first_call_says_how_the_program_ends() -> None:
    stop = Stop(LONG_S)
    stop.ask(130)
    stop.ask(0)
    assert stop.exit_code == 130


async def test_a_program_that_has_failed_says_so_however_it_ends() -> None:
    for calls in ((1, 0), (0, 1)):
        stop = Stop(LONG_S)
        for code in calls:
            stop.ask(code)
        assert stop.exit_code == 1


async def test_what_is_left_in_work_when_it_is_time_to_close_makes_a_failure() -> None:
    async def for_ever() -> None:
        await asyncio.Event().wait()

    stop = Stop(LONG_S)
    stop.ask(0)
    stop._closing_at = 0  # long ago
    await stop.drain(for_ever())
    assert stop.exit_code == 0
    stop.is_idle = lambda: False
    await stop.drain(for_ever())
    assert stop.exit_code == 1


async def test_a_stop_cancels_work_and_waits_for_its_end() -> None:
    stop = Stop(LONG_S)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    waiting = asyncio.create_task(stop.or_result(work()))
    await begun.wait()
    stop.ask(0)
    assert await waiting is None
    assert ended.is_set()


async def test_work_that_ends_by_itself_tells_what_it_came_to() -> None:
    async def work() -> int:
        return 7

    async def broken() -> int:
        raise ValueError("broken")

    stop = Stop(LONG_S)
    assert await stop.or_result(work()) == 7
    with pytest.raises(ValueError, match="broken"):
        await stop.or_result(broken())
