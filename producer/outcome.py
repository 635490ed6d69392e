"""Hearing what becomes of events."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Self, TypeAlias, TypeVar, overload
from uuid import UUID

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from pamqp.common import FieldTable
from pydantic import SecretStr

from producer.connection import BrokerError, close, connect, words_of
from schemas.cancellation import loss_is_no_cancellation
from schemas.events import (
    CleanupCompleted,
    CleanupRequested,
    ImageGenerated,
    ImageOutputExpired,
    ImageUploadCompleted,
    ImageUploadDelayed,
    ImageUploadFailed,
    output_id,
)
from schemas.topology import EXCHANGE

Outcome: TypeAlias = ImageUploadCompleted | ImageUploadFailed | ImageOutputExpired
"""Of an image's event; that its output has expired is the outcome of one that is repeated late."""
OnDelayed: TypeAlias = Callable[[ImageUploadDelayed], None]

_Subject: TypeAlias = UUID | str
"""Whom an outcome concerns: the output that an image's event leads to, stored or not, or a cleanup by its request."""
_Ended = TypeVar("_Ended")

_OUTCOMES: Final = {
    event.TYPE: event for event in (ImageUploadCompleted, ImageUploadFailed, ImageOutputExpired, CleanupCompleted)
}
# All users' events pass through; should we fall behind, the broker drops the oldest instead of filling its memory.
_QUEUE: Final[FieldTable] = {"x-queue-type": "classic", "x-max-length": 10_000}


class NoOutcomeError(BrokerError):
    """We stopped listening before there was an outcome: the event goes its way, and nobody here hears of it."""

    broker_may_have_it = True


class Outcomes:
    """Hears of every event's outcome inside `async with`, over a connection of its own that stays lost once it is.

    Args:
        amqp_url: RabbitMQ, `amqp://` or `amqps://`.
        on_delayed: Called with each news of a delay, of any event; default: nobody wants to know.
        timeout_s: Seconds that connecting may take.
    """

    def __init__(self, amqp_url: str, *, on_delayed: OnDelayed | None = None, timeout_s: float = 30) -> None:
        self._amqp_url = SecretStr(amqp_url)
        self._on_delayed = on_delayed
        self._timeout_s = timeout_s
        self._waiting: defaultdict[_Subject, dict[asyncio.Future[Any], str]] = defaultdict(dict)
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

    @overload
    def of(self, event: ImageGenerated) -> AbstractContextManager[asyncio.Future[Outcome]]: ...

    @overload
    def of(self, event: CleanupRequested) -> AbstractContextManager[asyncio.Future[CleanupCompleted]]: ...

    @contextmanager
    def of(self, event: ImageGenerated | CleanupRequested) -> Iterator[asyncio.Future[Any]]:
        """A future of the event's outcome. Enter before publishing, so that it cannot be missed.

        It raises `NoOutcomeError` when the connection is lost first.
        """
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        subject = event.id if isinstance(event, CleanupRequested) else output_id(event.source, event.id)
        self._waiting[subject][outcome] = event.id
        if self._lost.is_set():
            self._lose()
        try:
            yield outcome
        finally:
            del self._waiting[subject][outcome]
            if not self._waiting[subject]:
                del self._waiting[subject]
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
                for routing_key in (*_OUTCOMES, *([] if self._on_delayed is None else [ImageUploadDelayed.TYPE])):
                    await queue.bind(EXCHANGE, routing_key)
                await queue.consume(self._hear, no_ack=True)
        except CONNECTION_EXCEPTIONS as error:
            raise BrokerError(f"the outcome cannot be waited for: {words_of(error)}") from error

    def _lose(self, *_: object) -> None:
        self._lost.set()
        for outcomes in self._waiting.values():
            for outcome, event_id in outcomes.items():
                if not outcome.done():
                    message = f"the connection was lost before event {event_id} had an outcome"
                    outcome.set_exception(NoOutcomeError(message))

    async def _hear(self, message: AbstractIncomingMessage) -> None:
        try:
            if message.routing_key == ImageUploadDelayed.TYPE:
                self._tell_delay(ImageUploadDelayed.model_validate_json(message.body))
            elif waiting := self._waiting.get(_subject(message)):
                news = _OUTCOMES[message.routing_key or ""].model_validate_json(message.body)
                for outcome in waiting:
                    if not outcome.done():
                        outcome.set_result(news)
        except (ValueError, LookupError, TypeError, RecursionError):
            return  # what makes no sense is nobody's outcome

    def _tell_delay(self, delayed: ImageUploadDelayed) -> None:
        if self._on_delayed is not None:
            self._on_delayed(delayed)


def _subject(message: AbstractIncomingMessage) -> _Subject:
    data = json.loads(message.body)["data"]
    match message.routing_key:
        case CleanupCompleted.TYPE:
            return str(data["causeId"])
        case ImageOutputExpired.TYPE:
            return UUID(str(data["outputId"]))
        case _:
            return output_id(data["causeSource"], data["causeId"])


async def within(wait_s: float, event: ImageGenerated | CleanupRequested, outcome: "asyncio.Future[_Ended]") -> _Ended:
    """The outcome of an event that is published.

    Raises:
        NoOutcomeError: There was none in that time, or the connection was lost.
    """
    try:
        async with asyncio.timeout(wait_s):
            return await outcome
    except TimeoutError:
        message = f"event {event.id} is published, but had no outcome within {wait_s:g} s; a worker may still finish it"
        raise NoOutcomeError(message) from None
