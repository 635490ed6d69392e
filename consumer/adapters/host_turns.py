"""Fetches by host: one that does not answer takes a share of the work, and no more."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from consumer.core.errors import BusyError
from schemas.reasons import Reason

_PROMPT_S: Final = 5.0


class _Host:
    """A host that somebody fetches from, or wants to."""

    def __init__(self, share: int, prompt_s: float) -> None:
        self.prompt_s = prompt_s
        self.interested = 0
        self.share = self.window = share
        self.begun_at: dict[object, float] = {}  # of the fetches under way, the oldest first
        self.answered_at = float("-inf")
        self.is_silent = False
        self.moved = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether one more fetch may begin."""
        oldest = next(iter(self.begun_at.values()), None)
        if oldest is not None and time.monotonic() - oldest > self.prompt_s:
            self.window = self.share
        return len(self.begun_at) < self.window

    def ended(self, fetch: object) -> None:
        """The fetch has; whatever came of it, a prompt one has kept nobody waiting, and makes room for two."""
        now = time.monotonic()
        if now - self.begun_at.pop(fetch) < self.prompt_s:
            self.window += 1
            self.answered_at, self.is_silent = now, False
        else:
            self.window = self.share
        self.moved.set()


class HostTurns:
    """A share of the fetches for each host, and with each prompt answer one more, until one is not prompt.

    Args:
        share: How many.
        timeout_s: After how many seconds a fetch is given up, and makes room.
        patience_s: How long to wait for room while a host does not answer; without it, as long as an answer is prompt.
    """

    def __init__(self, share: int, *, timeout_s: float, patience_s: float | None = None) -> None:
        self._share = share
        self._timeout_s = timeout_s
        self._prompt_s = min(_PROMPT_S, timeout_s / 2)  # what is given up is no answer
        self._patience_s = self._prompt_s if patience_s is None else patience_s
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Inside, the host may be fetched from.

        Raises:
            BusyError: on entering; its share is taken, and waiting for an answer was in vain.
        """
        host = self._hosts.setdefault(name, _Host(self._share, self._prompt_s))
        host.interested += 1
        try:
            await self._room(name, host)
            host.begun_at[fetch := object()] = time.monotonic()
            try:
                yield
            finally:
                host.ended(fetch)
        finally:
            host.interested -= 1
            if not host.interested:
                del self._hosts[name]

    async def _room(self, name: str, host: _Host) -> None:
        came_at = time.monotonic()
        while not host.has_room:
            patience_s = max(came_at, host.answered_at) + self._patience_s - time.monotonic()
            if host.is_silent or patience_s <= 0:
                host.is_silent = True
                detail = f"{len(host.begun_at)} fetches from {name} wait for an answer: more are not begun"
                raise BusyError(Reason.SOURCE_UNAVAILABLE, detail, not_before_s=self._timeout_s)
            host.moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await host.moved.wait()
