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
from consumer.adapters.amqp_decoding import writable
from consumer.core.errors import StalledError, StartError
from consumer.core.ports import Delivery, Meter
from consumer.core.records import fingerprint
from consumer.core.redact import redact
from schemas import topology
from schemas.cancellation import loss_is_no_cancellation

_OF_THE_BROKER: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
_OF_THE_ROUTING: Final = ("CC", "BCC")  # they would send the copy to where the original went, once more
_LARGEST_NUMBER: Final = 1_000_000  # whatever a header says, it must fit a column
_MOVED: Final = "x-death"
_DELIVERY_COUNTS: Final = ("x-delivery-count", "x-acquired-count")  # which of them a broker has depends on its release
_MOST_RETURNS: Final = 2  # of a message above suspicion: a broker's restart returns all, a worker's end what it had
_LOOK_EVERY_S: Final = 10.0
_LOOKS: Final = 3  # in vain, until something is done about it

_log = structlog.get_logger()


class RabbitDelivery:
    """One receipt of a message from RabbitMQ: see `Delivery`."""

    def __init__(self, message: AbstractIncomingMessage) -> None:
        self._message = message
        self.body = message.body
        self.content_type = message.content_type
        # The library would give a copy without an id another one each time, and nobody would know it again.
        self.message_id = message.message_id or fingerprint(message.body)
        self.attempt = max(1, _number(message.headers.get(topology.X_ATTEMPT), 1))
        self.replays = max(0, _number(message.headers.get(topology.X_REPLAYS), 0))
        returns = max(_number(message.headers.get(name), 0) for name in _DELIVERY_COUNTS)
        self.is_returned = bool(message.redelivered)
        # A count is believed of what was returned alone, or a publisher could say what it likes.
        self.is_suspect = topology.X_SUSPECT in message.headers or (self.is_returned and returns > _MOST_RETURNS)
        # What comes back from a rung, or was replayed, is a new message to the broker.
        has_moved = _MOVED in message.headers or self.replays > 0
        self.is_first = not (self.is_returned or self.is_suspect or has_moved)

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
            headers={**writable(own), **headers},
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

    After a start it takes one at a time, until one comes that is not suspect: what a crash gave back comes first, and
    would take its neighbours along once more. When the connection is lost, the tasks of its deliveries are cancelled:
    their messages are somebody else's by then.
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
        look_every_s: float = _LOOK_EVERY_S,
    ) -> None:
        self._url = url
        self._name = f"{name} consumer"
        self._prefetch = prefetch
        self._retry_delays_s = retry_delays_s
        self._take = take
        self._meter = meter
        self._look_every_s = look_every_s
        self._tag = ""
        self._slots = asyncio.Semaphore(prefetch)  # a new subscription does not count what an earlier one delivered
        self._connection: AbstractConnection | None = None
        self._queue: AbstractQueue | None = None
        self._subscribing: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._subscribed = asyncio.Event()
        self._is_careful = True
        self._is_paused = False
        self._in_hand = 0
        self._looks_in_vain = 0

    async def start(self) -> None:
        """The topology is there; deliveries do not come yet. Waits for a broker that is away.

        Raises:
            StartError: the broker refuses us, or has queues of our names with other arguments.
        """
        self._connection = await rabbit.prepare(self._url, self._name, self._retry_delays_s)

    async def run(self) -> None:
        """Deliveries come, unless they are paused, until this is cancelled and `stop` is called.

        Raises:
            StalledError: the broker has messages and does not deliver them, not even to a new subscription.
        """
        while True:
            try:
                if self._connection is None:
                    self._connection = await rabbit.connect_and_declare(self._url, self._name, self._retry_delays_s)
                    self._meter.reconnected()
                await self._serve(self._connection)
            except (*rabbit.LOST, StartError) as error:
                rabbit.tell_waiting(self._url, error)
            self._mark(attached=False)
            self._subscribed.clear()
            await self.close()
            await asyncio.sleep(rabbit.PAUSE_S)

    def pause(self, *, paused: bool) -> None:
        """No delivery comes while it is paused; those in work can be settled."""
        self._is_paused = paused
        self._changed.set()

    async def stop(self) -> None:
        """No further delivery comes; those in work can still be acked."""
        self._mark(attached=False)
        self._subscribed.clear()
        if self._subscribing is not None:
            await asyncio.wait((self._subscribing,), timeout=rabbit.CONNECT_TIMEOUT_S)
        await self._unsubscribe()

    async def close(self) -> None:
        """The connection is closed; what is not acked is delivered again, to whoever is there."""
        connection, self._connection, self._queue = self._connection, None, None
        await rabbit.close(connection)

    async def queue_sizes(self) -> dict[str, int]:
        """Ready messages of each queue that uploads go through.

        Raises:
            OSError, AMQPError: the broker is away.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(rabbit.PAUSE_S):
                await self._subscribed.wait()
        if self._connection is None or not self._subscribed.is_set():
            raise ConnectionError("RabbitMQ does not deliver to this worker")
        # The classic ones are the schedule's, and asking for one that is away with its node takes its time.
        names = [
            each.name for each in topology.queues(self._retry_delays_s) if each.name not in topology.CLASSIC_QUEUES
        ]
        return await rabbit.queue_sizes(self._connection, names)

    async def _serve(self, connection: AbstractConnection) -> None:
        """As many deliveries come as should, until the connection is lost."""
        self._lost = lost = asyncio.Event()
        channel = await self._channel(connection, lost)
        prefetch = 0
        while not lost.is_set():
            self._changed.clear()
            if prefetch != self._wanted():
                prefetch = self._wanted()
                # A call that is cancelled half-way closes the channel, and with it what is in work: a stop lets it end.
                self._subscribing = asyncio.create_task(self._subscribe(channel, prefetch))
                self._subscribing.add_done_callback(_look_at)
                await asyncio.shield(self._subscribing)
            self._subscribed.set()
            try:
                async with asyncio.timeout(self._look_every_s):
                    await self._changed.wait()
            except TimeoutError:
                await self._look(connection, prefetch)

    def _wanted(self) -> int:
        if self._is_paused:
            return 0
        return 1 if self._is_careful else self._prefetch

    async def _channel(self, connection: AbstractConnection, lost: asyncio.Event) -> AbstractChannel:
        def lose(*_: object) -> None:
            lost.set()
            self._changed.set()

        with loss_is_no_cancellation():
            channel: AbstractChannel = await connection.channel(publisher_confirms=False)
            channel.close_callbacks.add(lose)
            (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(lose)
        return channel

    async def _subscribe(self, channel: AbstractChannel, prefetch: int) -> None:
        await self._unsubscribe()
        if prefetch:
            with loss_is_no_cancellation():
                await channel.set_qos(prefetch_count=prefetch)
                # Ours, so that it can be cancelled before the broker has answered; and new, or RabbitMQ 3.10 ends the
                # connection over an ack of what came under the old one.
                self._tag = f"{self._name} {token_hex(4)}"
                self._queue = await channel.get_queue(topology.WORK_QUEUE, ensure=False)
                await self._queue.consume(self._on_message, consumer_tag=self._tag)
            _log.info("taking deliveries", queue=topology.WORK_QUEUE, prefetch=prefetch)
        self._mark(attached=prefetch > 0)

    async def _unsubscribe(self) -> None:
        if self._queue is not None:
            with suppress(*rabbit.LOST), loss_is_no_cancellation():
                await self._queue.cancel(self._tag, timeout=rabbit.CONNECT_TIMEOUT_S)
            self._queue = None

    async def _look(self, connection: AbstractConnection, prefetch: int) -> None:
        """Whether the broker delivers as it should was looked at.

        Raises:
            ConnectionError: it has not for some time.
            StalledError: it has not since then either.
        """
        ready = 0
        if self._in_hand < prefetch:
            ready = (await rabbit.queue_sizes(connection, [topology.WORK_QUEUE])).get(topology.WORK_QUEUE, 0)
        self._looks_in_vain = self._looks_in_vain + 1 if ready else 0
        trouble = f"RabbitMQ has {ready} messages in {topology.WORK_QUEUE} and delivers none"
        if self._looks_in_vain >= 2 * _LOOKS:
            raise StalledError(f"{trouble}, not even after subscribing anew")
        if self._looks_in_vain == _LOOKS:
            raise ConnectionError(trouble)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        delivery = RabbitDelivery(message)
        self._looks_in_vain = 0
        if delivery.is_suspect is not self._is_careful:
            self._is_careful = delivery.is_suspect
            self._changed.set()
        self._in_hand += 1
        try:
            async with self._slots:
                await self._take(delivery)
        finally:
            self._in_hand -= 1

    def _mark(self, *, attached: bool) -> None:
        self._meter.attached(up=attached)


def _look_at(task: asyncio.Task[None]) -> None:
    """Its error is nobody's surprise any more; whoever waits for the task hears of it."""
    if not task.cancelled():
        task.exception()


def _number(value: Any, default: int) -> int:  # noqa: ANN401 a header is whatever its publisher made it
    try:
        return min(int(value), _LARGEST_NUMBER)
    except (TypeError, ValueError, OverflowError):
        return default
