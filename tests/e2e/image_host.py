"""A web server that generators might use: it gives what a test puts there, and behaves as badly as the test wants."""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, Self

from aiohttp import web

_SHUTDOWN_TIMEOUT_S: Final = 0.5  # a request that stalls for ever would hold a longer one up


@dataclass(frozen=True)
class Answer:
    """What one GET is answered; a stalled one waits until its client is gone."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stalled: bool = False


GONE: Final = Answer(b"not here", 404)
UNAVAILABLE: Final = Answer(b"come back later", 503)
STALLED: Final = Answer(stalled=True)


class ImageHost:
    """Answers on 127.0.0.1 inside `async with`; `requests` counts the GETs by name."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self._answers: dict[str, deque[Answer]] = {}

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None, handler_cancellation=True), shutdown_timeout=_SHUTDOWN_TIMEOUT_S
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
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

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        name = request.path.lstrip("/")
        self.requests[name] += 1
        answers = self._answers.get(name) or deque((GONE,))
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        if answer.stalled:
            await asyncio.Event().wait()
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)
