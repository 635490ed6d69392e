"""The dead queue of RabbitMQ, for somebody who reads it and keeps nothing."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity

from consumer.adapters import rabbit
from consumer.adapters.rabbit_consumer import RabbitDelivery
from consumer.core.dead_letter import DeadLetter
from consumer.core.decode import EventRefusedError, decode
from consumer.core.errors import BrokerError
from consumer.core.records import Cause
from consumer.core.redact import redact, redact_url
from schemas import topology
from schemas.cancellation import loss_is_no_cancellation
from schemas.events import ImageGenerated
from schemas.reasons import Reason

_PAGE: Final = 64  # bodies that may be in memory at once
_LOOK_EVERY_S: Final = 0.5
_LOOKS_AT_NONE: Final = 2  # letters on their way to us are not in the queue either
_SILENCE_S: Final = 10.0
_OF_THE_DEAD: Final = (topology.X_REASON, topology.X_DETAIL, topology.X_FAILED_AT, topology.X_WORKER)
_MAX_DETAIL_CHARS: Final = 2000  # far more than ours have: who else publishes into the queue may write a book


class RabbitDeadLetter(RabbitDelivery):
    """One receipt of a dead letter: a copy of it is the message as it was before it failed."""

    def __init__(self, message: AbstractIncomingMessage, on_ack: Callable[[], None]) -> None:
        super().__init__(message)
        self.headers: Mapping[str, Any] = message.headers
        self._on_ack = on_ack

    async def ack(self) -> None:
        """The broker forgets the letter: see `Delivery.ack`."""
        await super().ack()
        self._on_ack()

    def copy(self, headers: Mapping[str, str | int]) -> aio_pika.Message:
        """The message to publish anew, without what was said of its failure."""
        message = super().copy(headers)
        for name in _OF_THE_DEAD:
            message.headers.pop(name, None)
        return message

    @cached_property
    def cause(self) -> Cause:
        """Who the event is, as the worker would read it."""
        return self._read[0]

    @property
    def ids(self) -> set[str]:
        """What it may be asked for by."""
        return {name for name in (self.cause.event_id, self.cause.job_id, self.message_id) if name}

    @cached_property
    def letter(self) -> DeadLetter:
        """What is left of it when the body is gone."""
        cause, event = self._read
        return DeadLetter(
            message_id=self.message_id,
            event_id=cause.event_id,
            source=cause.source,
            fingerprint=cause.fingerprint,
            job_id=cause.job_id,
            user_id=cause.user_id,
            image_url=redact_url(cause.image_url) if cause.image_url is not None else None,
            happened_at=event.time if event else None,
            reason=_text(self.headers.get(topology.X_REASON)) or Reason.CRASH_LOOP,
            detail=_text(self.headers.get(topology.X_DETAIL)) or "the broker gave up delivering it",
            attempts=self.attempt,
            replays=self.replays,
            failed_at=_time(self.headers.get(topology.X_FAILED_AT)) or _died_at(self.headers.get("x-death")),
            worker=_text(self.headers.get(topology.X_WORKER)),
            size_bytes=len(self.body),
        )

    @cached_property
    def _read(self) -> tuple[Cause, ImageGenerated | None]:
        try:
            event = decode(self.body, content_type=self.content_type, message_id=self.message_id, replays=self.replays)
        except EventRefusedError as refused:
            return refused.cause, None
        return Cause.of(event, self.replays), event


class DeadLetters:
    """The letters that were in the queue when it was opened, each once; `count` is how many, `read` how many so far.

    What was not acked goes back when the context ends.
    """

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel, count: int, address: str) -> None:
        self.count = count
        self.read = 0
        self._acked = 0
        self._connection = connection
        self._channel = channel
        self._address = address

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator[Self]:
        """The dead queue, over a connection of its own.

        Raises:
            StartError: the broker refuses us.
            BrokerError: it is away, is lost while the context lasts, or has no dead queue.
        """
        address = rabbit.address(url)
        connection: AbstractConnection | None = None
        try:
            with _told(address):
                connection = await rabbit.connect(url, "image-uploads dead letters")
                count = await _count(connection)
                channel: AbstractChannel = await connection.channel(publisher_confirms=False)
                await channel.set_qos(prefetch_count=_PAGE)
            yield cls(connection, channel, count, address)
            with _told(address):
                _refuse_lost(channel)
                await channel.close()  # which is answered, so that every ack before it has been read
        finally:
            await rabbit.close(connection)

    async def __aiter__(self) -> AsyncGenerator[RabbitDeadLetter]:
        """One after the other, with no more than a page of bodies on its way.

        A subscription stalls once all that it may hold is held: then another one is added, for the next page. A single
        one could hold no more than 2,000 letters of a quorum queue without a limit, and 65,535 with one.
        """
        came: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        may_hold = 0
        while self.read < self.count:
            with _told(self._address):
                if came.empty() and self.read - self._acked == may_hold:
                    queue = await self._channel.get_queue(topology.DEAD_QUEUE, ensure=False)
                    await queue.consume(came.put)
                    may_hold += _PAGE
                message = await self._next(came)
            if message is None:
                return
            self.read += 1
            yield RabbitDeadLetter(message, self._count_ack)

    def _count_ack(self) -> None:
        self._acked += 1

    async def _next(self, came: asyncio.Queue[AbstractIncomingMessage]) -> AbstractIncomingMessage | None:
        """The next letter; none if somebody else has taken the rest."""
        looks_at_none = 0
        for _ in range(round(_SILENCE_S / _LOOK_EVERY_S)):
            message = await _within(_LOOK_EVERY_S, came)
            _refuse_lost(self._channel)
            if message is not None:
                return message
            looks_at_none = 0 if await _count(self._connection) else looks_at_none + 1
            if looks_at_none == _LOOKS_AT_NONE:
                return None
        raise ConnectionError(f"it delivers nothing from {topology.DEAD_QUEUE}")


async def _within(seconds: float, came: asyncio.Queue[AbstractIncomingMessage]) -> AbstractIncomingMessage | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await came.get()
    return None


def _refuse_lost(channel: AbstractChannel) -> None:
    if channel.is_closed:
        # What came over it belongs to nobody now, and may be with somebody else.
        raise ConnectionError("the connection was lost")


@contextmanager
def _told(address: str) -> Iterator[None]:
    """What goes wrong with the broker inside is told in one sentence."""
    try:
        with loss_is_no_cancellation():
            yield
    except ChannelNotFoundEntity as error:
        message = f"RabbitMQ at {address} has no queue {topology.DEAD_QUEUE}: run `image-uploads declare`"
        raise BrokerError(message) from error
    except rabbit.LOST as error:
        raise BrokerError(redact(f"RabbitMQ at {address} does not answer: {str(error) or repr(error)}")) from error


async def _count(connection: AbstractConnection) -> int:
    """How many letters the queue has that nobody holds.

    A passive declaration would say 0 of a quorum queue whose leader takes longer than 250 ms to answer. So the first
    letter is fetched, which tells how many come after it, and goes back with its channel.
    """
    async with connection.channel(publisher_confirms=False) as channel:
        queue = await channel.get_queue(topology.DEAD_QUEUE, ensure=False)
        first = await queue.get(fail=False, timeout=_SILENCE_S)
        return 0 if first is None else 1 + (first.message_count or 0)


def _text(value: object) -> str | None:
    return str(value)[:_MAX_DETAIL_CHARS] if value is not None else None


def _time(value: object) -> datetime | None:
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _died_at(deaths: object) -> datetime | None:
    """When the broker itself moved the message here, the latest of the times that it has noted."""
    entries = deaths if isinstance(deaths, list) else []
    times = [_time(entry.get("time")) for entry in entries if isinstance(entry, dict)]
    return max((time for time in times if time), default=None)
