"""The scheduled message: armed, taken, and what waits beside it, over a connection of its own.

Of its own, so that nothing about its queues can touch an upload: a queue whose node is away closes the channel of
whoever asks for it, and a run takes as long as it takes.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import uuid4

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.exceptions import DeliveryError, PublishError

from consumer.adapters import rabbit
from consumer.core.errors import BrokerError, StartError
from consumer.core.ports import CleanupDelivery
from consumer.core.redact import redact
from schemas import topology
from schemas.cancellation import loss_is_no_cancellation
from schemas.events import CONTENT_TYPE, CleanupRequested

Take: TypeAlias = Callable[[CleanupDelivery], Coroutine[Any, Any, None]]

_ARM_EVERY_S: Final = 60.0
_ANSWER_TIMEOUT_S: Final = 10.0  # a blocked connection makes no error, only silence
_COUNT_TIMEOUT_S: Final = 1.0  # whoever asks wants to know about other queues as well
_LONGEST_PAUSE_S: Final = 30.0
_CAME_FROM: Final = "x-first-death-queue"  # what the broker notes of a message that a queue's time limit moved

_log = structlog.get_logger()


class RabbitCleanupDelivery:
    """One receipt of a tick or a request: see `CleanupDelivery`."""

    def __init__(self, message: AbstractIncomingMessage) -> None:
        self._message = message
        self.body = message.body
        self.is_tick = message.headers.get(_CAME_FROM) == topology.CLEANUP_SCHEDULE_QUEUE

    async def ack(self) -> None:
        """The broker forgets the message: see `CleanupDelivery.ack`."""
        try:
            await self._message.ack()
        except rabbit.LOST as error:
            _log.info("a tick was acknowledged too late; it comes again", error=redact(repr(error)))


class RabbitSchedule:
    """See `Schedule` and `Backlog`; while `run` runs, ticks and requests are taken one at a time."""

    def __init__(self, url: str, name: str, *, interval_s: int, retry_delays_s: Sequence[int]) -> None:
        self._url = url
        self._name = f"{name} schedule"
        self._interval_s = interval_s
        self._retry_delays_s = retry_delays_s
        self._connection: AbstractConnection | None = None
        self._is_connected = asyncio.Event()
        self._publishing: AbstractChannel | None = None
        self._told = ""

    async def run(self, take: Take) -> None:
        """Ticks and requests are handed to `take` until this is cancelled; a run in progress is cancelled, too.

        What goes wrong with the queues or the broker is waited out: uploads need none of it.
        """
        pause_s = rabbit.PAUSE_S
        while True:
            connected_at = None
            try:
                async with self._connected() as connection:
                    connected_at = time.monotonic()
                    await self._serve(connection, take)
            except (*rabbit.LOST, BrokerError, StartError) as error:
                self._tell(error)
            except Exception:  # noqa: BLE001 for a defect of ours no upload may stop
                _log.exception("the schedule begins anew")
            has_served = connected_at is not None and time.monotonic() - connected_at > _LONGEST_PAUSE_S
            if has_served:
                self._told = ""
            # A broker that is away is asked often; one that is there and lacks a queue waits for its nodes.
            if has_served or connected_at is None:
                pause_s = rabbit.PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def arm(self) -> None:
        """A tick is pending, unless the schedule is off: see `Schedule.arm`."""
        if not self._interval_s:
            return
        try:
            with loss_is_no_cancellation():
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    if await self._waits():
                        return
                    channel = await self._publishing_channel()
                    await channel.default_exchange.publish(
                        self._tick(), topology.CLEANUP_SCHEDULE_QUEUE, mandatory=True, timeout=_ANSWER_TIMEOUT_S
                    )
        except PublishError as error:
            raise BrokerError(f"there is no queue {topology.CLEANUP_SCHEDULE_QUEUE} to hold a tick") from error
        except DeliveryError:
            pass  # the queue is full: one is pending
        except rabbit.LOST as error:
            raise BrokerError(f"RabbitMQ did not confirm a tick: {error!r}") from error

    async def queue_sizes(self) -> dict[str, int]:
        """Ready messages of each queue that cleanups go through; of none if they are away with their node."""
        with suppress(*rabbit.LOST):
            async with asyncio.timeout(_COUNT_TIMEOUT_S):
                await self._is_connected.wait()
                if self._connection is not None:
                    return await rabbit.queue_sizes(self._connection, topology.CLASSIC_QUEUES)
        return {}

    async def is_empty(self) -> bool:
        """Whether no event is ready or waits on a rung: see `Backlog.is_empty`."""
        queues = (topology.WORK_QUEUE, *map(topology.rung_queue, self._retry_delays_s))
        try:
            if self._connection is None:
                raise ConnectionError("not connected")
            if any((await self._sizes(self._connection, queues)).values()):
                return False
            # A quorum queue that is slow to answer is counted as empty, so what it has is asked for.
            return not any([await self._has_message(self._connection, queue) for queue in queues])
        except rabbit.LOST as error:
            raise BrokerError(f"RabbitMQ does not say what waits: {error!r}") from error

    async def _has_message(self, connection: AbstractConnection, name: str) -> bool:
        with loss_is_no_cancellation():
            # What the channel was given goes back when it closes.
            async with asyncio.timeout(_ANSWER_TIMEOUT_S), connection.channel() as channel:
                queue = await channel.get_queue(name, ensure=False)
                try:
                    return await queue.get(no_ack=False, fail=False) is not None
                except ChannelNotFoundEntity:
                    return False  # a rung that nobody has declared

    async def _sizes(self, connection: AbstractConnection, queues: Sequence[str]) -> dict[str, int]:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            return await rabbit.queue_sizes(connection, queues)

    async def _serve(self, connection: AbstractConnection, take: Take) -> None:
        """Ticks and requests are worked off; ends with an error once the connection or the queue is lost."""
        lost = asyncio.Event()
        messages: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            await self._consume(connection, messages, lost)
        await self._arm_or_mend(connection)
        while True:
            try:
                async with asyncio.timeout(min(self._interval_s or _ARM_EVERY_S, _ARM_EVERY_S)):
                    message = await messages.get()
            except TimeoutError:
                await self._arm_or_mend(connection)
                continue
            if message is None:
                raise ConnectionError(f"the queue {topology.CLEANUP_QUEUE} or the connection was lost")
            await _unless_lost(take(RabbitCleanupDelivery(message)), lost)

    async def _consume(
        self,
        connection: AbstractConnection,
        messages: asyncio.Queue[AbstractIncomingMessage | None],
        lost: asyncio.Event,
    ) -> None:
        def lose(*_: object) -> None:
            lost.set()
            messages.put_nowait(None)

        with loss_is_no_cancellation():
            channel: AbstractChannel = await connection.channel(publisher_confirms=False)
            channel.close_callbacks.add(lose)
            (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(lose)
            await channel.set_qos(prefetch_count=1)
            queue = await channel.get_queue(topology.CLEANUP_QUEUE, ensure=False)
            await queue.consume(messages.put)

    async def _arm_or_mend(self, connection: AbstractConnection) -> None:
        """The schedule is armed; or its queue, which may be away with its node, is declared for the next time."""
        try:
            await self.arm()
        except BrokerError as error:
            self._tell(error)
            await rabbit.declare(connection, self._retry_delays_s)

    def _tell(self, error: Exception) -> None:
        trouble = redact(str(error) or repr(error))
        if trouble != self._told:  # an absence of hours is one line
            _log.warning("the schedule waits for RabbitMQ", error=trouble)
        self._told = trouble

    async def _waits(self) -> bool:
        """Whether a tick or request waits, whose end will arm: ticks do not heap up behind a long run, or an outage."""
        if self._connection is None:
            raise ConnectionError("not connected")
        return any((await rabbit.queue_sizes(self._connection, [topology.CLEANUP_QUEUE])).values())

    async def _publishing_channel(self) -> AbstractChannel:
        if self._connection is None:
            raise ConnectionError("not connected")
        if self._publishing is None or self._publishing.is_closed:
            self._publishing = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        return self._publishing

    def _tick(self) -> aio_pika.Message:
        tick = CleanupRequested(id=str(uuid4()), time=datetime.now(UTC))
        return aio_pika.Message(
            tick.body(),
            content_type=CONTENT_TYPE,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=tick.id,
            expiration=self._interval_s,
        )

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AbstractConnection]:
        self._connection = await rabbit.connect_and_declare(self._url, self._name, self._retry_delays_s)
        self._is_connected.set()
        try:
            yield self._connection
        finally:
            self._is_connected.clear()
            connection, self._connection, self._publishing = self._connection, None, None
            await rabbit.close(connection)


async def _unless_lost(work: Coroutine[Any, Any, None], lost: asyncio.Event) -> None:
    """The work is done, or was cancelled because its message is somebody else's by now."""
    working, losing = asyncio.create_task(work), asyncio.create_task(lost.wait())
    try:
        await asyncio.wait((working, losing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        losing.cancel()
        await asyncio.wait((working, losing))
    if not working.cancelled():
        working.result()
    elif not lost.is_set():
        raise ConnectionError("a run was cancelled by nobody of ours")
