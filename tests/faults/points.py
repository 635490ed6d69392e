"""The points of a message's way, and a worker that asks its parent at each of them: `python -m tests.faults.points`.

The worker is the product's own; only its adapters are wrapped, before it starts.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from consumer.__main__ import main
from consumer.adapters.image_source import ImageSources
from consumer.adapters.inspect import PillowInspector
from consumer.adapters.oss import OssStore
from consumer.adapters.postgres_records import PostgresRecords
from consumer.adapters.postgres_trials import PostgresTrials
from consumer.adapters.rabbit_consumer import RabbitDelivery
from consumer.adapters.rabbit_publisher import RabbitPublisher
from schemas import topology

GATE_PORT: Final = "FAULTS_GATE_PORT"
"""Names the variable with the port of the parent's gate; without it no point asks."""
FATAL_URL: Final = "FAULTS_FATAL_URL"
"""Names the variable with the image URL that kills the worker that fetches it."""

Step: TypeAlias = Callable[..., Awaitable[Any]]


class _Gate:
    """Asks the parent at each point, and waits until it lets us go on."""

    def __init__(self, port: int | None) -> None:
        self._port = port
        self._opening = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._asked = 0

    async def passes(self, point: str) -> None:
        """The parent lets us go on; only this task has waited for it."""
        if self._port is None:
            return
        async with self._opening:
            if self._writer is None:
                reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
                self._listening = asyncio.create_task(self._listen(reader))
        self._asked += 1
        self._waiting[self._asked] = waiting = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps([self._asked, point]).encode() + b"\n")
        await waiting

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            waiting = self._waiting.pop(json.loads(line))
            if not waiting.done():
                waiting.set_result(None)


def wrap(gate: _Gate, fatal_url: str | None) -> None:
    """Every step of a message's way has a point before it and one after it."""

    def wrapped(step: Step, name: Callable[..., str | None]) -> Step:
        async def points(*arguments: Any, **more: Any) -> Any:
            if (said := name(*arguments[1:])) is None:
                return await step(*arguments, **more)
            await gate.passes(f"before {said}")
            result = await step(*arguments, **more)
            await gate.passes(f"after {said}")
            return result

        return points

    fetch = ImageSources.open

    @asynccontextmanager
    async def opened(source: ImageSources, url: str) -> AsyncIterator[Any]:
        if url == fatal_url:
            os.kill(os.getpid(), signal.SIGKILL)
        await gate.passes("before fetch")
        async with fetch(source, url) as image:
            await gate.passes("after fetch")
            yield image

    ImageSources.open = opened  # type: ignore[method-assign,assignment]
    for kind, method, name in (
        (PostgresRecords, "find", lambda *_: "find"),
        (PostgresTrials, "crashes", lambda *_: "look for crashes"),
        (PostgresTrials, "begin", lambda *_: "note"),
        (PostgresTrials, "end", lambda *_: "erase"),
        (PillowInspector, "__call__", lambda *_: "inspect"),
        (OssStore, "put", lambda key, *_: None if key.startswith("users/.") else "put"),
        (PostgresRecords, "record", lambda *_: "record"),
        (PostgresRecords, "fail", lambda *_: "fail"),
        (RabbitPublisher, "announce", lambda event: f"announce {event.type.rpartition('.')[2]}"),
        (
            RabbitPublisher,
            "copy",
            lambda _, queue, *__: f"copy to {'dead' if queue == topology.DEAD_QUEUE else 'rung'}",
        ),
        (ImageSources, "discard", lambda *_: "discard"),
        (RabbitDelivery, "ack", lambda *_: "ack"),
    ):
        setattr(kind, method, wrapped(getattr(kind, method), name))


if __name__ == "__main__":
    port = os.environ.get(GATE_PORT)
    wrap(_Gate(int(port) if port else None), os.environ.get(FATAL_URL))
    main()
