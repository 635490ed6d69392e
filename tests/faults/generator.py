"""A generator that publishes until the broker confirms, whatever happens to the broker."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection

from consumer.adapters import rabbit
from schemas import topology
from schemas.cancellation import loss_is_no_cancellation
from schemas.events import CONTENT_TYPE, ImageGenerated
from tests.faults.mixture import Planned

_TIMEOUT_S: Final = 5
_PAUSE_S: Final = 0.1


class Generator:
    """Publishes persistent, mandatory and confirmed; an event without a confirmation is published again.

    Args:
        amqp_url: The broker.
        tell: Is told of every confirmation.
    """

    def __init__(self, amqp_url: str, tell: Callable[[Planned], None]) -> None:
        self._amqp_url = amqp_url
        self._tell = tell
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._turn = asyncio.Lock()

    async def publish(self, planned: Planned) -> None:
        """The broker has the event."""
        async with self._turn:  # the broker's verdicts are told apart by message id, which duplicates share
            while True:
                try:
                    with loss_is_no_cancellation():
                        async with asyncio.timeout(_TIMEOUT_S):
                            await self._send(planned)
                except rabbit.LOST:
                    await self.close()
                    await asyncio.sleep(_PAUSE_S)
                else:
                    self._tell(planned)
                    return

    async def publish_all(self, events: Iterable[Planned], *, per_s: float) -> None:
        """The broker has all of them; so many a second are published, or fewer if it is slower."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for planned in events:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + 1 / per_s, loop.time() - 1)
            await self.publish(planned)

    async def close(self) -> None:
        """Its connection is closed, or left to itself."""
        connection, self._connection, self._channel = self._connection, None, None
        await rabbit.close(connection)

    async def _send(self, planned: Planned) -> None:
        if self._channel is None:
            self._connection = await rabbit.connect(self._amqp_url, "generator")
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await self._channel.get_exchange(topology.EXCHANGE, ensure=False)
        message = aio_pika.Message(
            planned.body,
            headers=dict(planned.headers),
            content_type=CONTENT_TYPE,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=planned.message_id,
        )
        await exchange.publish(message, ImageGenerated.TYPE, mandatory=True)
