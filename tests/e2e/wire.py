"""The broker as generators and subscribers see it: events go in, news comes out."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from consumer.adapters.rabbit import declare
from producer.publisher import image_generated
from schemas import topology
from schemas.events import CONTENT_TYPE, ImageGenerated

RETRY_DELAYS_S: Final = (1, 2)
COMPLETED: Final = "image.upload.completed"
FAILED: Final = "image.upload.failed"
DELAYED: Final = "image.upload.delayed"
EXPIRED: Final = "image.output.expired"

USER: Final = "test@factory-buy.com"

_PATIENCE_S: Final = 60


def event(image_url: str, job_id: str = "abc123", **more: Any) -> ImageGenerated:
    """An event of a generator's, with an id of its own unless `more` has one."""
    return image_generated(
        **{"image_url": image_url, "job_id": job_id, "user_id": USER, "source": "/generators/e2e", **more}
    )


@dataclass(frozen=True)
class News:
    """A message of the worker's to whoever listens."""

    type: str
    event: dict[str, Any]
    message: AbstractIncomingMessage

    @property
    def data(self) -> dict[str, Any]:
        """What the envelope holds."""
        data: dict[str, Any] = self.event["data"]
        return data

    @property
    def body(self) -> bytes:
        """The envelope as it came."""
        return self.message.body


class Wire:
    """Hears everything that is announced from the moment it is opened; `news` is all of it, in order."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.news: list[News] = []
        self._channel = channel
        self._came = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def opened(cls, amqp_url: str) -> AsyncIterator[Self]:
        """A wire on a broker that has all queues."""
        async with await aio_pika.connect(amqp_url) as connection:
            await declare(connection, RETRY_DELAYS_S)
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            wire = cls(channel)
            queue = await channel.declare_queue(exclusive=True)
            for routing_key in (COMPLETED, FAILED, DELAYED, EXPIRED):
                await queue.bind(topology.EXCHANGE, routing_key)
            await queue.consume(wire._hear, no_ack=True)
            yield wire

    async def publish(self, event: ImageGenerated) -> None:
        """The broker has the event."""
        await self.publish_body(event.body(), message_id=event.id, correlation_id=event.data.job_id)

    async def publish_body(self, body: bytes, *, message_id: str, correlation_id: str | None = None) -> None:
        """The broker has a message with this body, which may be no event at all."""
        exchange = await self._channel.get_exchange(topology.EXCHANGE, ensure=False)
        message = aio_pika.Message(
            body,
            content_type=CONTENT_TYPE,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=message_id,
            correlation_id=correlation_id,
        )
        await exchange.publish(message, ImageGenerated.TYPE, mandatory=True)

    async def hears(self, type_: str, count: int = 1, *, about: ImageGenerated | None = None) -> list[News]:
        """At least so much news of that type, about that event if one is named."""

        def matching() -> list[News]:
            return [
                news for news in self.news if news.type == type_ and (about is None or news.data["causeId"] == about.id)
            ]

        async with self._came:
            try:
                await asyncio.wait_for(self._came.wait_for(lambda: len(matching()) >= count), _PATIENCE_S)
            except TimeoutError:
                heard = "\n".join(f"{news.type} {news.body.decode()}" for news in self.news[-5:])
                raise AssertionError(
                    f"heard {len(matching())} of {count} {type_}; the latest of all:\n{heard}"
                ) from None
            return matching()

    async def completion(self, event: ImageGenerated) -> News:
        """The first completion of the event."""
        return (await self.hears(COMPLETED, about=event))[0]

    async def failure(self, event: ImageGenerated) -> News:
        """The first failure of the event."""
        return (await self.hears(FAILED, about=event))[0]

    async def dead_letters(self, count: int) -> list[AbstractIncomingMessage]:
        """So many dead letters; they are taken off the queue."""
        letters: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        dead = await self._channel.get_queue(topology.DEAD_QUEUE, ensure=False)
        tag = await dead.consume(letters.put, no_ack=True)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return [await letters.get() for _ in range(count)]
        finally:
            await dead.cancel(tag)

    async def waiting(self, queue: str) -> int:
        """How many messages the queue holds that nobody has."""
        declared = await self._channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0

    async def _hear(self, message: AbstractIncomingMessage) -> None:
        async with self._came:
            self.news.append(News(message.routing_key or "", json.loads(message.body), message))
            self._came.notify_all()
