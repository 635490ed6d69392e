"""Who works when: side by side, or alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Any number work side by side; whoever must be alone waits for them, and they wait for him."""

    def __init__(self) -> None:
        self._working = 0
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._open = asyncio.Event()
        self._open.set()
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Inside, nobody is alone."""
        while not self._open.is_set():
            await self._open.wait()
        self._working += 1
        self._nobody.clear()
        try:
            yield
        finally:
            self._working -= 1
            if not self._working:
                self._nobody.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Inside, nobody else works."""
        async with self._alone:
            self._open.clear()
            try:
                await self._nobody.wait()
                yield
            finally:
                self._open.set()
