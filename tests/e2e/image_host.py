"""A web server that generators might use: it gives what a test puts there, and behaves as badly as the test wants."""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, Self

from aiohttp import web

_SHUTDOWN_TIMEOUT_S: Final = 0.5  # a request that stalls for ever would hold a longer one up


@dataclass(frozen=True)
class Answer:
    """What one GET is answered."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


GONE: Final = Answer(b"not here", 404)
UNAVAILABLE: Final = Answer(b"come back later", 503)


class ImageHost:
    """Answers on 127.0.0.1 inside `async with`; `requests` counts the GETs by name."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self._answers: dict[str, deque[Answer]] = {}
        self._gate = asyncio.Event()
        self._gate.set()

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None, handler_cancellation=True), shutdown_timeout=_SHUTDOWN_TIMEOUT_S
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._loop = asyncio.get_running_loop()
        self._port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def url(self, name: str) -> str:
        """Where the name is to be found."""
        return f"http://127.0.0.1:{self._port}/{name}"

    def give(self, name: str, *answers: Answer | bytes) -> str:
        """GETs of the name are answered so, one after the other, and the last answer stays; its URL."""
        self._answers[name] = deque(
            answer if isinstance(answer, Answer) else Answer(answer, headers={"Content-Type": "image/png"})
            for answer in answers
        )
        return self.url(name)

    def hold(self) -> None:
        """GETs from now on are counted and get no answer, until they are released."""
        self._loop.call_soon_threadsafe(self._gate.clear)

    def release(self) -> None:
        """Everybody gets an answer again, those who wait for one too."""
        self._loop.call_soon_threadsafe(self._gate.set)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        name = request.path.lstrip("/")
        self.requests[name] += 1
        await self._gate.wait()
        answers = self._answers.get(name) or deque((GONE,))
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)
