import asyncio
from collections.abc import Sequence

import pytest

from consumer.adapters.grouping import Grouped


class Groups:
    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.gate = asyncio.Event()
        self.bad: set[int] = set()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.seen.append(list(items))
        await self.gate.wait()
        if self.bad & set(items):
            raise ValueError("bad data")
        return [item * 10 for item in items]


async def test_calls_that_come_while_one_runs_share_the_next_and_each_gets_its_own_result() -> None:
    groups = Groups()
    grouped = Grouped(groups)
    first = asyncio.create_task(grouped(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(grouped(number)) for number in range(2, 6)]
    await asyncio.sleep(0)
    groups.gate.set()
    assert await asyncio.gather(first, *others) == [10, 20, 30, 40, 50]
    assert groups.seen == [[1], [2, 3, 4, 5]]


async def test_a_bad_item_fails_alone() -> None:
    groups = Groups()
    groups.bad = {3}
    groups.gate.set()
    grouped = Grouped(groups, splits_on=(ValueError,))
    results = await asyncio.gather(*(grouped(number) for number in range(8)), return_exceptions=True)
    assert [isinstance(result, ValueError) for result in results] == [number == 3 for number in range(8)]
    assert [result for result in results if isinstance(result, int)] == [0, 10, 20, 40, 50, 60, 70]


async def test_any_other_error_is_everybodys_and_the_next_call_works() -> None:
    groups = Groups()
    groups.bad = {1}
    groups.gate.set()
    grouped = Grouped(groups)
    results = await asyncio.gather(grouped(1), grouped(2), return_exceptions=True)
    assert all(isinstance(result, ValueError) for result in results)
    assert await grouped(2) == 20


async def test_a_group_is_no_larger_than_the_largest() -> None:
    groups = Groups()
    groups.gate.set()
    grouped = Grouped(groups, largest=3)
    assert await asyncio.gather(*(grouped(number) for number in range(7))) == [number * 10 for number in range(7)]
    assert [len(group) for group in groups.seen] == [3, 3, 1]


async def test_a_caller_who_gives_up_takes_nobody_along() -> None:
    groups = Groups()
    grouped = Grouped(groups)
    quitter, stayer = asyncio.create_task(grouped(1)), asyncio.create_task(grouped(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    quitter.cancel()
    groups.gate.set()
    assert await stayer == 20
    with pytest.raises(asyncio.CancelledError):
        await quitter


async def test_a_caller_who_gives_up_before_all_are_refused_takes_nobody_along() -> None:
    async def run(_items: Sequence[int]) -> list[int]:
        leaving.cancel()
        await asyncio.sleep(0)
        raise ZeroDivisionError("a defect")

    grouped = Grouped(run)
    leaving = asyncio.create_task(grouped(1))
    staying = asyncio.create_task(grouped(2))
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(staying, 10)
    with pytest.raises(asyncio.CancelledError):
        await leaving
