"""Hearing what becomes of events."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Self, TypeAlias

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from pamqp.common import FieldTable
from pydantic import SecretStr

from producer.connection import BrokerError, close, connect, words_of
from schemas.cancellation import loss_is_no_cancellation
from schemas.events import ImageGenerated, ImageUploadCompleted, ImageUploadDelayed, ImageUploadFailed
from schemas.topology import EXCHANGE

Outcome: TypeAlias = ImageUploadCompleted | ImageUploadFailed
OnDelayed: TypeAlias = Callable[[ImageUploadDelayed], None]

_HEARD: Final = (ImageUploadCompleted.TYPE, ImageUploadFailed.TYPE, ImageUploadDelayed.TYPE)
# All users' events pass through; should we fall behind, the broker drops the oldest instead of filling its memory.
_QUEUE: Final[FieldTable] = {"x-queue-type": "classic", "x-max-length": 10_000}


class NoOutcomeError(BrokerError):
    """We stopped listening before there was an outcome: the event goes its way, and nobody here hears of it."""

    broker_may_have_it = True


class Outcomes:
    """Hears of every event's outcome inside `async with`, over a connection of its own that stays lost once it is.

    Args:
        amqp_url: RabbitMQ, `amqp://` or `amqps://`.
        on_delayed: Called with each news of a delay, of any event.
        timeout_s: Seconds that connecting may take.
    """

    def __init__(self, amqp_url: str, *, on_delayed: OnDelayed, timeout_s: float = 30) -> None:
        self._amqp_url = SecretStr(amqp_url)
        self._on_delayed = on_delayed
        self._timeout_s = timeout_s
        self._waiting: defaultdict[tuple[str, str], set[asyncio.Future[Outcome]]] = defaultdict(set)
        self._lost = asyncio.Event()

    async def __aenter__(self) -> Self:
        """We listen.

        Raises:
            BrokerError: We cannot, so nothing should be published whose outcome is to be waited for.
        """
        self._connection = await connect(
            self._amqp_url, name="image-uploads producer, waiting", timeout_s=self._timeout_s
        )
        try:
            await self._listen(self._connection)
        except BaseException:
            await close(self._connection)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._lose()
        await close(self._connection)

    @contextmanager
    def of(self, event: ImageGenerated) -> Iterator[asyncio.Future[Outcome]]:
        """A future of the event's outcome. Enter before publishing, so that it cannot be missed.

        It raises `NoOutcomeError` when the connection is lost first.
        """
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        key = (event.source, event.id)
        self._waiting[key].add(outcome)
        if self._lost.is_set():
            self._lose()
        try:
            yield outcome
        finally:
            self._waiting[key].discard(outcome)
            if not self._waiting[key]:
                del self._waiting[key]
            if not outcome.cancel() and not outcome.cancelled():
                outcome.exception()  # asyncio complains about one that nobody looked at

    async def lost(self) -> None:
        """The connection is lost, and every future has heard of it."""
        await self._lost.wait()

    async def _listen(self, connection: AbstractConnection) -> None:
        try:
            connection.close_callbacks.add(self._lose)
            with loss_is_no_cancellation():
                channel = await connection.channel()
                channel.close_callbacks.add(self._lose)
                (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(self._lose)
                queue = await channel.declare_queue(exclusive=True, arguments=_QUEUE)
                for routing_key in _HEARD:
                    await queue.bind(EXCHANGE, routing_key)
                await queue.consume(self._hear, no_ack=True)
        except CONNECTION_EXCEPTIONS as error:
            raise BrokerError(f"the outcome cannot be waited for: {words_of(error)}") from error

    def _lose(self, *_: object) -> None:
        self._lost.set()
        for (_source, event_id), outcomes in self._waiting.items():
            for outcome in outcomes:
                if not outcome.done():
                    message = f"the connection was lost before event {event_id} had an outcome"
                    outcome.set_exception(NoOutcomeError(message))

    async def _hear(self, message: AbstractIncomingMessage) -> None:
        try:
            data = json.loads(message.body)["data"]
            waiting = self._waiting.get((data["causeSource"], data["causeId"]), set())
            match message.routing_key:
                case ImageUploadDelayed.TYPE:
                    self._on_delayed(ImageUploadDelayed.model_validate_json(message.body))
                case ImageUploadCompleted.TYPE if waiting:
                    _tell(waiting, ImageUploadCompleted.model_validate_json(message.body))
                case ImageUploadFailed.TYPE if waiting:
                    _tell(waiting, ImageUploadFailed.model_validate_json(message.body))
        except (ValueError, LookupError, TypeError, RecursionError):
            return  # what makes no sense is nobody's outcome


def _tell(waiting: set[asyncio.Future[Outcome]], news: Outcome) -> None:
    for outcome in waiting:
        if not outcome.done():
            outcome.set_result(news)
