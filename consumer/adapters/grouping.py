"""Group commit: calls that come while one is under way share the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Grouped(Generic[Item, Result]):
    """Turns a function of many items into one of a single item, without waiting for company.

    A lone call runs at once; under load, groups grow by themselves to what arrives during one run. When a group is
    refused with an error of type `splits_on`, its halves are run apart, so that one bad item fails alone.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        splits_on: tuple[type[Exception], ...] = (),
        largest: int = 500,
    ) -> None:
        self._run = run
        self._splits_on = splits_on
        self._largest = largest
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """The item's own result.

        Raises:
            Exception: whatever the run of the item's group raised.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run_groups())
        return await future

    async def _run_groups(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[: self._largest], self._waiting[self._largest :]
            await self._run_group(group)

    async def _run_group(self, group: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._run([item for item, _ in group])
        except self._splits_on as error:
            if len(group) == 1:
                _refuse(group, error)
                return
            middle = len(group) // 2
            await self._run_group(group[:middle])
            await self._run_group(group[middle:])
        except Exception as error:  # noqa: BLE001 it is raised by whoever waits
            _refuse(group, error)
        except BaseException:
            for _, future in group:
                future.cancel()
            raise
        else:
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _refuse(group: Sequence[tuple[Item, asyncio.Future[Result]]], error: Exception) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
