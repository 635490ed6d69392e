"""Deliveries from RabbitMQ, for as long as the program runs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue

from consumer.adapters import rabbit
from consumer.core.errors import StartError
from consumer.core.ports import Delivery, Meter
from consumer.core.redact import redact
from schemas import topology
from schemas.cancellation import loss_is_no_cancellation

_OF_THE_BROKER: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
_OF_THE_ROUTING: Final = ("CC", "BCC")  # they would send the copy to where the original went, once more
_LARGEST_NUMBER: Final = 1_000_000  # whatever a header says, it must fit a column

_log = structlog.get_logger()


class RabbitDelivery:
    """One receipt of a message from RabbitMQ: see `Delivery`."""

    def __init__(self, message: AbstractIncomingMessage) -> None:
        self._message = message
        self.body = message.body
        self.content_type = message.content_type
        self.message_id = message.message_id
        self.attempt = max(1, _number(message.headers.get(topology.X_ATTEMPT), 1))
        self.replays = max(0, _number(message.headers.get(topology.X_REPLAYS), 0))

    async def ack(self) -> None:
        """The broker forgets the message: see `Delivery.ack`."""
        try:
            await self._message.ack()
        except rabbit.LOST as error:
            _log.info("an acknowledgement came too late; the message comes again", error=redact(repr(error)))

    def copy(self, headers: Mapping[str, str | int]) -> aio_pika.Message:
        """The message to publish anew: without the broker's own headers, which would mislead the next reader."""
        own = {
            name: value
            for name, value in self._message.headers.items()
            if not name.startswith(_OF_THE_BROKER) and name not in _OF_THE_ROUTING
        }
        return aio_pika.Message(
            self.body,
            headers={**own, **headers},
            content_type=self.content_type,
            content_encoding=self._message.content_encoding,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=self.message_id,
            correlation_id=self._message.correlation_id,
            timestamp=self._message.timestamp,
            type=self._message.type,
            app_id=self._message.app_id,
        )


class RabbitConsumer:
    """Hands every delivery of the work queue to `take`, a task each, and subscribes anew after any loss.

    When the connection is lost, the tasks of its deliveries are cancelled: their messages are somebody else's by then.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        prefetch: int,
        retry_delays_s: Sequence[int],
        take: Callable[[Delivery], Awaitable[None]],
        meter: Meter,
    ) -> None:
        self._url = url
        self._name = f"{name} consumer"
        self._prefetch = prefetch
        self._retry_delays_s = retry_delays_s
        self._take = take
        self._meter = meter
        self._lost = asyncio.Event()
        self._connection: AbstractConnection | None = None
        self._queue: AbstractQueue | None = None
        self._tag = f"{name} {token_hex(4)}"  # ours, so that it can be cancelled before the broker has answered
        self._attached = asyncio.Event()

    async def start(self) -> None:
        """The topology is there; deliveries do not come yet. Waits for a broker that is away.

        Raises:
            StartError: the broker refuses us, or has queues of our names with other arguments.
        """
        self._connection = await rabbit.prepare(self._url, self._name, self._retry_delays_s)

    async def run(self) -> None:
        """Deliveries come, until this is cancelled and `stop` is called."""
        while True:
            try:
                if self._connection is None:
                    self._connection = await rabbit.connect_and_declare(self._url, self._name, self._retry_delays_s)
                    self._meter.reconnected()
                await self._subscribe()
                await self._lost.wait()
            except (*rabbit.LOST, StartError) as error:
                rabbit.tell_waiting(self._url, error)
            self._mark(attached=False)
            await self.close()
            await asyncio.sleep(rabbit.PAUSE_S)

    async def stop(self) -> None:
        """No further delivery comes; those in work can still be acked."""
        self._mark(attached=False)
        if self._queue is not None:
            with suppress(*rabbit.LOST), loss_is_no_cancellation():
                await self._queue.cancel(self._tag, timeout=rabbit.CONNECT_TIMEOUT_S)

    async def close(self) -> None:
        """The connection is closed; what is not acked is delivered again, to whoever is there."""
        connection, self._connection, self._queue = self._connection, None, None
        await rabbit.close(connection)

    async def queue_sizes(self) -> dict[str, int]:
        """Ready messages per queue.

        Raises:
            OSError, AMQPError: the broker is away.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(rabbit.PAUSE_S):
                await self._attached.wait()
        if self._connection is None or not self._attached.is_set():
            raise ConnectionError("RabbitMQ does not deliver to this worker")
        names = [queue.name for queue in topology.queues(self._retry_delays_s)]
        return await rabbit.queue_sizes(self._connection, names)

    async def _subscribe(self) -> None:
        if self._connection is None:
            raise ConnectionError("not connected")
        self._lost = lost = asyncio.Event()
        with loss_is_no_cancellation():
            await self._consume(self._connection, lost)
        self._mark(attached=True)
        _log.info("taking deliveries", queue=topology.WORK_QUEUE, prefetch=self._prefetch)

    async def _consume(self, connection: AbstractConnection, lost: asyncio.Event) -> None:
        channel: AbstractChannel = await connection.channel(publisher_confirms=False)
        channel.close_callbacks.add(lambda *_: lost.set())
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(lambda _: lost.set())
        await channel.set_qos(prefetch_count=self._prefetch)
        self._queue = await channel.get_queue(topology.WORK_QUEUE, ensure=False)
        await self._queue.consume(self._on_message, consumer_tag=self._tag)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        await self._take(RabbitDelivery(message))

    def _mark(self, *, attached: bool) -> None:
        (self._attached.set if attached else self._attached.clear)()
        self._meter.attached(up=attached)


def _number(value: Any, default: int) -> int:  # noqa: ANN401 a header is whatever its publisher made it
    try:
        return min(int(value), _LARGEST_NUMBER)
    except (TypeError, ValueError, OverflowError):
        return default
