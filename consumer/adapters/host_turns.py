"""Fetches by host: one that does not answer takes a share of the work, and no more."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from consumer.core.errors import BusyError
from schemas.reasons import Reason

_PROMPT_S: Final = 5.0
_PATIENCE_S: Final = 1.0


@dataclass(slots=True)
class _Host:
    """A host that somebody fetches from, or wants to."""

    interested: int = 0
    fetches: int = 0
    answered_at: float = float("-inf")
    is_silent: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class HostTurns:
    """Any number of fetches from a host that answers promptly; from any other, no more than its share.

    Args:
        share: How many.
        timeout_s: After how many seconds a fetch is given up, and makes room.
    """

    def __init__(self, share: int, *, timeout_s: float, patience_s: float = _PATIENCE_S) -> None:
        self._share = share
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Inside, the host may be fetched from.

        Raises:
            BusyError: on entering; its share is taken, and waiting a moment for an answer was in vain.
        """
        host = self._hosts.setdefault(name, _Host())
        host.interested += 1
        try:
            await self._room(name, host)
            host.fetches += 1
            started = time.monotonic()
            try:
                yield
            finally:
                host.fetches -= 1
                if time.monotonic() - started < _PROMPT_S:  # whatever the answer was, it kept nobody waiting
                    host.answered_at, host.is_silent = time.monotonic(), False
                host.moved.set()
        finally:
            host.interested -= 1
            if not host.interested:
                del self._hosts[name]

    async def _room(self, name: str, host: _Host) -> None:
        try:
            async with asyncio.timeout(0 if host.is_silent else self._patience_s):
                while not self._has_room(host):
                    host.moved.clear()
                    await host.moved.wait()
        except TimeoutError:
            host.is_silent = True
            detail = f"{host.fetches} fetches from {name} wait for an answer: more are not begun"
            raise BusyError(Reason.SOURCE_UNAVAILABLE, detail, not_before_s=self._timeout_s) from None

    def _has_room(self, host: _Host) -> bool:
        return host.fetches < self._share or time.monotonic() - host.answered_at < _PROMPT_S
