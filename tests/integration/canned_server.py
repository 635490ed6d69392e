"""A server that answers whatever it is asked with the same bytes, and then does one of three things."""

import asyncio
import ssl
from enum import Enum, auto
from typing import Self

TLS_HANDSHAKE = b"\x16"


class Then(Enum):
    """What becomes of the connection after the answer."""

    CLOSE = auto()
    RESET = auto()
    SILENCE = auto()


class CannedServer:
    """Answers on 127.0.0.1 inside `async with`; `{url}` in an answer is its own address."""

    def __init__(self, answer: bytes = b"", then: Then = Then.CLOSE, *, tls: ssl.SSLContext | None = None) -> None:
        self.asked = 0
        self._answer = answer
        self._then = then
        self._tls = tls
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self._port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        while await self._read_request(reader):
            self.asked += 1
            writer.write(self._answer.replace(b"{url}", self.url.encode()))
            await writer.drain()
            if self._then is Then.SILENCE:
                continue
            if self._then is Then.RESET:
                writer.transport.abort()
            break
        writer.close()

    async def _read_request(self, reader: asyncio.StreamReader) -> bool:
        try:
            head = await reader.readexactly(1)
            if head == TLS_HANDSHAKE:  # no server of plain HTTP waits for the end of that
                return False
            head += await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().splitlines()
            sizes = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
            await reader.readexactly(sum(sizes))
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        return True


def http(status: int, body: bytes = b"", headers: str = "") -> bytes:
    """An HTTP answer that closes its connection."""
    head = f"HTTP/1.1 {status} Said So\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body
