"""The end of the program: asked for by a signal, and sure to come."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog

FAILED: Final = 1
_INTERRUPTED: Final = 130
_CLOSING_S: Final = 3.0

Result = TypeVar("Result")

_log = structlog.get_logger()


class Stop:
    """SIGTERM and SIGINT, as something to wait for.

    From the first of them on, the program has so many seconds: then it ends as it is, whatever still hangs on a server
    that is silent or on a mount that is stuck. What was not acked comes again. The last of them are for closing.
    """

    def __init__(self, within_s: float) -> None:
        self.exit_code = 0
        self.is_idle: Callable[[], bool] = lambda: True
        """Whether nothing is in work: a stop that takes too long has failed if something is."""
        self._within_s = within_s
        self._closing_at: float | None = None
        self._asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.ask, 0)
        loop.add_signal_handler(signal.SIGINT, self.ask, _INTERRUPTED)

    def ask(self, exit_code: int) -> None:
        """The program is to end, with the code of the first call unless it failed; its time runs from that call."""
        if not self._asked.is_set():
            loop = asyncio.get_running_loop()
            self._closing_at = loop.time() + self._within_s - min(_CLOSING_S, self._within_s / 5)
            loop.call_later(self._within_s, self._leave)
        if exit_code == FAILED or not self._asked.is_set():
            self.exit_code = exit_code
        self._asked.set()

    async def drain(self, work: Coroutine[Any, Any, None]) -> None:
        """The work has ended, or it is time to close everything; the log and the exit code tell what is left then."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._closing_at):
                await work
        self._tell_left()

    async def or_result(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """What the work returns or raises, or none if a signal came first; then the work was cancelled."""
        asked = asyncio.create_task(self._asked.wait())
        working = asyncio.create_task(work)
        await asyncio.wait((asked, working), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        working.cancel()
        await asyncio.wait((working,))
        return None if working.cancelled() else working.result()

    def _tell_left(self) -> None:
        if not self.is_idle():
            _log.warning("stopped with deliveries in work; they come again", waited_s=self._within_s)
            self.exit_code = FAILED

    def _leave(self) -> None:
        self._tell_left()
        _log.warning("stopped without waiting for what hangs", waited_s=self._within_s)
        sys.stderr.flush()
        os._exit(self.exit_code)
