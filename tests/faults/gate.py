"""The parent's side of `tests.faults.points`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

_REACHED_TIMEOUT_S: Final = 20


class Gate:
    """Workers ask here at each point of their way; one point can be closed."""

    port: int

    def __init__(self) -> None:
        self.passed: list[str] = []
        self._closed: str | None = None
        self._reached = asyncio.Event()
        self._held: tuple[asyncio.StreamWriter, int] | None = None

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator["Gate"]:
        """A gate that listens."""
        gate = cls()
        async with await asyncio.start_server(gate._serve, "127.0.0.1", 0) as server:
            gate.port = server.sockets[0].getsockname()[1]
            yield gate

    def close(self, point: str) -> None:
        """The next worker that comes to the point stays there, until it is let go."""
        self._closed, self._held = point, None
        self._reached.clear()

    async def reached(self) -> bool:
        """A worker is at the closed point; whether that came about."""
        try:
            async with asyncio.timeout(_REACHED_TIMEOUT_S):
                await self._reached.wait()
        except TimeoutError:
            return False
        return True

    def let_go(self) -> None:
        """Whoever waits goes on, and every point is open."""
        self._closed = None
        if self._held:
            writer, number = self._held
            writer.write(b"%d\n" % number)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):  # the worker was killed
            while line := await reader.readline():
                number, point = json.loads(line)
                self.passed.append(point)
                if point == self._closed:
                    self._closed, self._held = None, (writer, number)
                    self._reached.set()
                else:
                    writer.write(b"%d\n" % number)
        writer.close()
