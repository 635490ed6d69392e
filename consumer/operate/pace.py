"""How quickly a long list is worked off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

_AT_ONCE: Final = 32  # confirms take turns of the network, and not of the processor

Item = TypeVar("Item")


async def paced(
    items: AsyncIterator[Item], do: Callable[[Item], Awaitable[None]], per_second: float | None = None
) -> None:
    """All items are done: one by one and no more than so many a second, or else some at once, begun in their order.

    When one fails, those that were begun with it are brought to their end first.
    """
    at_once = 1 if per_second else _AT_ONCE
    interval_s = 1 / per_second if per_second else 0.0
    due, batch = 0.0, list[Item]()
    async for item in items:
        batch.append(item)
        if len(batch) == at_once:
            due = await _after(due) + interval_s
            await _together(batch, do)
            batch.clear()
    await _together(batch, do)


async def _after(due: float) -> float:
    """It is that time, or later; returns the time it should have been."""
    now = asyncio.get_running_loop().time()
    if due > now:
        await asyncio.sleep(due - now)
    return max(due, now)


async def _together(batch: list[Item], do: Callable[[Item], Awaitable[None]]) -> None:
    results = await asyncio.gather(*(do(item) for item in batch), return_exceptions=True)
    for error in results:
        if error is not None:
            raise error
