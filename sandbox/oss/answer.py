"""The answer to a request, and the ways of not giving one."""

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from typing import BinaryIO, Final, NoReturn

from aiohttp import web

_CHUNK_BYTES: Final = 256 * 1024
_LINGER_NOT: Final = struct.pack("ii", 1, 0)  # struct linger: on, for zero seconds


@dataclass(slots=True)
class Answer:
    """What is sent back.

    `file`, if there is one, is the body: `length` bytes from where it stands, of which only the first
    `cut_after` are sent, if that is set, before the connection ends. Without a file `length` is what a
    HEAD tells.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: BinaryIO | None = None
    length: int = 0
    cut_after: int | None = None


async def send(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """The answer is on its way."""
    if answer.file is None and request.method != "HEAD":
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = answer.length
    if answer.file is None:
        await response.prepare(request)
    else:
        with answer.file as file:
            await response.prepare(request)
            await _send_file(response, file, answer)
        if answer.cut_after is not None:
            await hang_up(request)
    await response.write_eof()
    return response


async def _send_file(response: web.StreamResponse, file: BinaryIO, answer: Answer) -> None:
    left = answer.length if answer.cut_after is None else min(answer.length, answer.cut_after)
    while left:
        chunk = file.read(min(left, _CHUNK_BYTES))
        left -= len(chunk)
        await response.write(chunk)


async def hang_up(request: web.BaseRequest) -> NoReturn:
    """What was written is sent, then the connection ends."""
    if request.transport is not None:
        request.transport.close()
    await never()


async def reset(request: web.BaseRequest) -> NoReturn:
    """The connection ends with RST instead of FIN: what a socket sends that may not linger."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        request.transport.abort()
    await never()


async def never() -> NoReturn:
    """Nothing, until the connection is lost or the server stops: both cancel the handler."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")
