"""Hearing what becomes of one event."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from pamqp.common import FieldTable
from pydantic import SecretStr

from producer.connection import BrokerError, connect, words_of
from schemas.events import ImageGenerated, ImageUploadCompleted, ImageUploadDelayed, ImageUploadFailed
from schemas.topology import EXCHANGE

Outcome: TypeAlias = ImageUploadCompleted | ImageUploadFailed
OnDelayed: TypeAlias = Callable[[ImageUploadDelayed], None]

_HEARD: Final = {model.TYPE: model for model in (ImageUploadCompleted, ImageUploadFailed, ImageUploadDelayed)}
# All users' events pass through; should we fall behind, the broker drops the oldest instead of filling its memory.
_QUEUE: Final[FieldTable] = {"x-queue-type": "classic", "x-max-length": 10_000}


class NoOutcomeError(BrokerError):
    """We stopped listening before there was an outcome: the event goes its way, and nobody here hears of it."""

    broker_may_have_it = True


@asynccontextmanager
async def outcome_of(
    event: ImageGenerated, amqp_url: str, *, on_delayed: OnDelayed, timeout_s: float = 30
) -> AsyncIterator[asyncio.Future[Outcome]]:
    """A future of the event's completion or failure. Enter before publishing, so that neither can be missed.

    Args:
        event: It is recognised by its source and id.
        amqp_url: RabbitMQ, `amqp://` or `amqps://`; the connection is one of our own.
        on_delayed: Called with each news of a delay.
        timeout_s: Seconds that connecting may take.

    Raises:
        BrokerError: We cannot listen; the event should not be published. The future raises `NoOutcomeError`.
    """
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def hear(message: AbstractIncomingMessage) -> None:
        news = _news_of(event, message)
        if isinstance(news, ImageUploadDelayed):
            on_delayed(news)
        elif news is not None and not outcome.done():
            outcome.set_result(news)

    def lose(*_: object) -> None:
        if not outcome.done():
            outcome.set_exception(NoOutcomeError(f"the connection was lost before event {event.id} had an outcome"))

    connection = await connect(SecretStr(amqp_url), name="image-uploads producer, waiting", timeout_s=timeout_s)
    async with connection:
        try:
            await _listen(connection, hear, lose)
            yield outcome
        finally:
            if not outcome.cancel() and not outcome.cancelled():
                outcome.exception()  # asyncio complains about one that nobody looked at


async def _listen(
    connection: AbstractConnection,
    hear: Callable[[AbstractIncomingMessage], Awaitable[None]],
    lose: Callable[..., None],
) -> None:
    try:
        connection.close_callbacks.add(lose)
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True, arguments=_QUEUE)
        for routing_key in _HEARD:
            await queue.bind(EXCHANGE, routing_key)
        await queue.consume(hear, no_ack=True)
    except CONNECTION_EXCEPTIONS as error:
        raise BrokerError(f"the outcome cannot be waited for: {words_of(error)}") from error


def _news_of(event: ImageGenerated, message: AbstractIncomingMessage) -> Outcome | ImageUploadDelayed | None:
    """What the message says about the event; None when it is about another one, or makes no sense."""
    try:
        data = json.loads(message.body)["data"]
        if (data["causeSource"], data["causeId"]) != (event.source, event.id):
            return None
        return _HEARD[message.routing_key or ""].model_validate_json(message.body)
    except (ValueError, LookupError, TypeError):
        return None
