import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from consumer.runtime.turns import Turns


class Somebody:
    """Takes a turn, and keeps it until he is let go."""

    def __init__(self, turn: AbstractAsyncContextManager[None]) -> None:
        self.is_in = False
        self.may_go = asyncio.Event()
        self.task = asyncio.create_task(self._works(turn))

    async def _works(self, turn: AbstractAsyncContextManager[None]) -> None:
        async with turn:
            self.is_in = True
            try:
                await self.may_go.wait()
            finally:
                self.is_in = False


async def settled() -> None:
    """Whoever can go on has."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_must_be_alone_waits_for_the_last_of_many() -> None:
    turns = Turns()
    first, second = Somebody(turns.beside()), Somebody(turns.beside())
    await settled()
    alone = Somebody(turns.alone())
    first.may_go.set()
    await settled()
    assert (first.is_in, second.is_in, alone.is_in) == (False, True, False)
    second.may_go.set()
    await settled()
    assert alone.is_in
    alone.may_go.set()
    await alone.task


async def test_two_who_must_be_alone_are_so_one_after_the_other() -> None:
    turns = Turns()
    first, second = Somebody(turns.alone()), Somebody(turns.alone())
    await settled()
    assert (first.is_in, second.is_in) == (True, False)
    first.may_go.set()
    await settled()
    assert (first.is_in, second.is_in) == (False, True)
    second.may_go.set()
    await second.task


@pytest.mark.parametrize("lost_is_waiting", [True, False])
async def test_one_alone_whose_connection_is_lost_keeps_nobody_waiting(
    lost_is_waiting: bool,  # noqa: FBT001 a column of the table
) -> None:
    turns = Turns()
    before = Somebody(turns.beside())
    await settled()
    if not lost_is_waiting:
        before.may_go.set()
    lost = Somebody(turns.alone())
    await settled()
    assert lost.is_in is not lost_is_waiting
    lost.task.cancel()
    later = Somebody(turns.beside())
    await settled()
    assert later.is_in
    for somebody in (before, later):
        somebody.may_go.set()
        await somebody.task


async def test_one_of_many_whose_connection_is_lost_keeps_nobody_waiting() -> None:
    turns = Turns()
    lost = Somebody(turns.beside())
    await settled()
    lost.task.cancel()
    alone = Somebody(turns.alone())
    await settled()
    assert alone.is_in
    alone.may_go.set()
    await alone.task


async def test_whoever_has_waited_for_one_waits_for_the_next_as_well() -> None:
    turns = Turns()
    async with turns.alone():
        waiting = Somebody(turns.beside())
        await settled()
        next_one = Somebody(turns.alone())  # quicker than who is woken by the end of this turn
    await settled()
    assert (next_one.is_in, waiting.is_in) == (True, False)
    next_one.may_go.set()
    await settled()
    assert waiting.is_in
    waiting.may_go.set()
    await waiting.task
