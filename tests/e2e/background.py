"""Servers that answer while a test blocks: they run on an event loop in a thread of their own."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")


class Background:
    """An event loop in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What the work returned on that loop; this thread has waited for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)


@contextmanager
def background() -> Iterator[Background]:
    """A loop that turns for as long as the context lasts."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="background servers", daemon=True)
    thread.start()
    try:
        yield Background(loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
