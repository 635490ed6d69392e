import asyncio

import pytest

from consumer.runtime.stop import Stop


async def test_the_first_call_says_how_the_program_ends() -> None:
    stop = Stop(60)
    stop.ask(1)
    stop.ask(0)
    assert stop.exit_code == 1


async def test_a_stop_cancels_work_and_waits_for_its_end() -> None:
    stop = Stop(60)
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

    stop = Stop(60)
    assert await stop.or_result(work()) == 7
    with pytest.raises(ValueError, match="broken"):
        await stop.or_result(broken())
