"""The broker as the core sees it: confirmed publishing, over a connection of its own.

Of its own, because a memory alarm blocks every connection that has published, and consuming must go on.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import PublishError

from consumer.adapters.rabbit import LOST, address, close, connect
from consumer.adapters.rabbit_consumer import RabbitDelivery
from consumer.core.errors import BrokerError, StartError
from consumer.core.ports import Delivery
from schemas import topology
from schemas.cancellation import loss_is_no_cancellation
from schemas.events import CONTENT_TYPE, CloudEvent

_PUBLISH_TIMEOUT_S: Final = 10  # a blocked connection makes no error, only silence


@dataclass(frozen=True, slots=True)
class _Exchange:
    """An exchange to which messages go one right after the other, each waiting for its own confirm only.

    The library's own holds every other message back until one is written, which costs several turns of the loop each.
    """

    channel: AbstractChannel
    name: str

    async def publish(self, message: aio_pika.Message, routing_key: str, *, mandatory: bool) -> None:
        """The broker has confirmed the message, within the time that it is given."""
        underlay = await self.channel.get_underlay_channel()
        async with asyncio.timeout(_PUBLISH_TIMEOUT_S):
            # While the broker blocks us, nothing may be written: what is given up here would still be sent afterwards.
            await underlay.connection.ready()
            await underlay.basic_publish(  # type: ignore[call-arg]  # the abstract channel does not tell of `wait`
                message.body,
                exchange=self.name,
                routing_key=routing_key,
                properties=message.properties,
                mandatory=mandatory,
                wait=False,
            )


class RabbitPublisher:
    """Publishes persistent, confirmed messages; connects when it must, and again after a loss."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._opening = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._one_at_a_time: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def announce(self, event: CloudEvent[Any]) -> None:
        """The event has gone to whoever listens, maybe nobody: see `Broker.announce`."""
        message = aio_pika.Message(
            event.body(),
            content_type=CONTENT_TYPE,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=event.id,
            correlation_id=getattr(event.data, "job_id", None),
        )
        await self._publish(message, event.type, exchange=topology.EXCHANGE, mandatory=False)

    async def copy(self, delivery: Delivery, queue: str, headers: Mapping[str, str | int]) -> None:
        """The queue holds a copy of the message: see `Broker.copy`."""
        if not isinstance(delivery, RabbitDelivery):
            raise TypeError("only a delivery of RabbitMQ can be copied")
        message = delivery.copy(headers)
        # The broker's verdicts are told apart by message id alone, so two copies of one must not be under way at once.
        lock = self._one_at_a_time.setdefault(message.message_id or "", asyncio.Lock())
        async with lock:
            await self._publish(message, queue, exchange="", mandatory=True)

    async def probe(self) -> None:
        """The broker takes what is published.

        Raises:
            BrokerError: it is away, or blocks publishers because its memory or disk is low.
        """
        try:
            with loss_is_no_cancellation():
                async with asyncio.timeout(_PUBLISH_TIMEOUT_S / 2):
                    target = await self._exchange("")
                    await (await target.channel.get_underlay_channel()).connection.ready()
        except TimeoutError as error:
            raise BrokerError(f"RabbitMQ at {address(self._url)} takes no messages: look for an alarm") from error
        except (*LOST, StartError) as error:
            raise BrokerError(f"RabbitMQ at {address(self._url)}: {error!r}") from error

    async def close(self) -> None:
        """The connection is closed; what is not confirmed by now counts as refused."""
        await close(self._connection)

    async def _publish(self, message: aio_pika.Message, routing_key: str, *, exchange: str, mandatory: bool) -> None:
        try:
            with loss_is_no_cancellation():
                target = await self._exchange(exchange)
                await target.publish(message, routing_key, mandatory=mandatory)
        except PublishError as error:
            raise BrokerError(f"no queue takes {routing_key}: run `image-uploads declare`") from error
        except (*LOST, StartError) as error:
            raise BrokerError(f"RabbitMQ at {address(self._url)} did not confirm {routing_key}: {error!r}") from error

    async def _exchange(self, name: str) -> _Exchange:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                await self.close()
                self._connection = await connect(self._url, f"{self._name} publisher")
                self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            return _Exchange(self._channel, name)
