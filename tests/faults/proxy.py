"""A bad network: whoever connects to its port reaches a real server, through whatever faults are switched on."""

import asyncio
import math
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

from sandbox.process import free_port

_CHUNK: Final = 16384
_WAITING: Final = 64  # chunks under way: enough for some latency, and few enough that a slow way slows its sender
_TAIL: Final = 255  # bytes of the chunk before, in which a pattern may begin
_LOOK_S: Final = 0.01  # a fault may be switched from any thread, so its end is looked for
_PORTS: Final = {"amqp": 5672, "postgresql": 5432, "http": 80}


@dataclass
class Trap:
    """A connection is cut, once, when the pattern has passed; with an answer, when that is to pass the other way."""

    pattern: bytes
    answer: bytes | None
    sprung: Event = field(default_factory=Event)


@dataclass
class Way:
    """What is wrong with one direction of all connections, from now on; any thread may change it."""

    latency_s: float = 0
    jitter_s: float = 0
    """At most so much more latency; the order stays."""
    bytes_per_s: float = math.inf
    slice_bytes: int = _CHUNK
    """What is passed on at once."""
    frozen: bool = False
    """Connections stay, new ones too, and nothing comes through."""
    close_delay_s: float = 0
    """An end is told so much later."""
    cut_after: int | None = None
    """Once so many more bytes have passed, their connection is cut."""
    traps: list[Trap] = field(default_factory=list)

    def cut_when(self, pattern: bytes) -> Event:
        """Set once a connection was cut because the pattern had passed on it, with all that came in one piece."""
        return self._trap(Trap(pattern, None))

    def lose_answer_to(self, request: bytes, answer: bytes = b"") -> Event:
        """Set once a connection was cut instead of passing on the answer to the request that went this way.

        Without `answer`, whatever comes back first is taken for it.
        """
        return self._trap(Trap(request, answer))

    def _trap(self, trap: Trap) -> Event:
        self.traps.append(trap)
        return trap.sprung


class Proxy:
    """A port of its own in front of the server that a URL names; it refuses until it is `up`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._port = free_port()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self.to_server, self.to_client = Way(), Way()

    def url(self, original: str | None = None) -> str:
        """The URL (of the server, or of something on it) that leads through here."""
        parts = urlsplit(original or self._url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self._port}"))

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """The port leads to the server."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port)

    async def down(self) -> None:
        """The port refuses, and its connections have ended."""
        if self._server:
            self._server.close()
            self._server = None
        ending = dict(self._connections)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for ends in ending.values():
            for end in ends:
                end.transport.abort()  # whatever was still to be sent

    async def reset(self) -> None:
        """Both ends of every connection are told at once that there is none (RST); new ones are made."""
        for ends in self._connections.values():
            _reset(*ends)

    def end(self) -> None:
        """The server is told that its connections have ended, and ends them from its side."""
        for _, *far in self._connections.values():
            for end in far:
                with suppress(OSError):
                    end.write_eof()

    def freeze(self, *, frozen: bool = True) -> None:
        """Nothing comes through in either direction."""
        self.to_server.frozen = self.to_client.frozen = frozen

    def thaw(self) -> None:
        """What was held back comes through."""
        self.freeze(frozen=False)

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # accepted, and down meanwhile
            writer.transport.abort()
            return
        # A task of ours: asyncio would complain of one of its own that is cancelled.
        task = asyncio.create_task(self._lead(reader, writer))
        self._connections[task] = (writer,)
        task.add_done_callback(self._connections.pop)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        ends: tuple[asyncio.StreamWriter, ...] = (writer,)
        try:
            target = urlsplit(self._url)
            far_reader, far_writer = await asyncio.open_connection(
                target.hostname, target.port or _PORTS[target.scheme]
            )
            self._connections[task] = ends = (writer, far_writer)
            there, back = _Lane(self.to_server, reader, far_writer), _Lane(self.to_client, far_reader, writer)
            there.other, back.other = back, there
            async with asyncio.TaskGroup() as tasks:
                for lane in (there, back):
                    tasks.create_task(lane.take())
                    tasks.create_task(lane.give())
        except* _CutError:
            pass
        except* OSError:
            _reset(*ends)
        finally:
            for end in ends:
                end.close()


class _CutError(Exception):
    """A fault wants the connection cut; the bytes that have passed arrive all the same."""


class _Lane:
    """One direction of one connection."""

    other: "_Lane"

    def __init__(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self._way, self._source, self._sink = way, source, sink
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WAITING)
        self._tail = b""
        self._loses: list[Trap] = []

    async def take(self) -> None:
        """All that was sent is under way, and its end."""
        data = b"to be read"
        while data:
            data = await self._source.read(_CHUNK)
            await self._thawed()
            latency = self._way.latency_s + random.uniform(0, self._way.jitter_s)
            delay = latency if data else latency + self._way.close_delay_s
            await self._under_way.put((asyncio.get_running_loop().time() + delay, data))

    async def give(self) -> None:
        """All that was under way has arrived, and its end."""
        while True:
            due, data = await self._under_way.get()
            if (early := due - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(early)
            await self._thawed()
            if not data:
                with suppress(OSError):  # the other end has gone as well
                    self._sink.write_eof()
                return
            sprung = self._sprung(data)
            await self._pass(data)
            if sprung:
                sprung.sprung.set()
                raise _CutError

    async def _pass(self, data: bytes) -> None:
        way = self._way
        while data:
            await self._thawed()
            size = min(way.slice_bytes, _CHUNK if way.bytes_per_s == math.inf else max(1, int(way.bytes_per_s / 20)))
            if way.cut_after is not None:
                size = min(size, way.cut_after)
            piece, data = data[:size], data[size:]
            self._sink.write(piece)
            await self._sink.drain()
            if way.cut_after is not None:
                way.cut_after -= len(piece)
                if way.cut_after <= 0:
                    way.cut_after = None
                    raise _CutError
            if data or way.bytes_per_s < math.inf:
                await asyncio.sleep(len(piece) / way.bytes_per_s)

    async def _thawed(self) -> None:
        while self._way.frozen:  # noqa: ASYNC110 an asyncio.Event is its own loop's, and no other thread's
            await asyncio.sleep(_LOOK_S)

    def _sprung(self, data: bytes) -> Trap | None:
        """The trap that cuts the connection after this; raises at once if it may not be passed on."""
        if not (self._way.traps or self._loses):
            self._tail = b""
            return None
        seen, self._tail = self._tail + data, (self._tail + data)[-_TAIL:]
        for trap in self._loses:
            if trap.answer is not None and trap.answer in seen:
                trap.sprung.set()
                raise _CutError
        for trap in [trap for trap in self._way.traps if trap.pattern in seen]:
            self._way.traps.remove(trap)
            if trap.answer is None:
                return trap
            self.other._loses.append(trap)
        return None


def _reset(*ends: asyncio.StreamWriter) -> None:
    for end in ends:
        if not end.transport.is_closing():
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()
