"""Publishing so that a returned id means: the broker has the event, and a worker will find it there."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4
from weakref import WeakValueDictionary

from aio_pika import DeliveryMode, Message, exceptions
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from pydantic import SecretStr, ValidationError

from producer.connection import HOW_TO_DECLARE, BrokerError, close, connect, words_of
from producer.problems import problems_of
from schemas.cancellation import loss_is_no_cancellation
from schemas.events import CONTENT_TYPE, MAX_BODY_BYTES, CloudEvent, ImageGenerated
from schemas.topology import EXCHANGE


class PublishError(BrokerError):
    """An event is not confirmed. The message is one sentence that says whether the broker may have it.

    Attributes:
        event_id: Of the event in question; publishing it again with this id is safe, whatever happened.
        broker_may_have_it: False: it certainly does not.
    """

    def __init__(self, event_id: str, problem: str, *, broker_may_have_it: bool) -> None:
        doubt = "may or may not be published" if broker_may_have_it else "is not published"
        advice = "; publishing it again with the same id is safe" if broker_may_have_it else ""
        super().__init__(f"event {event_id} {doubt}: {problem}{advice}")
        self.event_id = event_id
        self.broker_may_have_it = broker_may_have_it


class RefusedError(PublishError):
    """A queue that should have taken the event is full, or has failed."""


def image_generated(  # noqa: PLR0913 the fields of an event are what they are
    *,
    image_url: str,
    job_id: str | int,
    user_id: str | int,
    source: str,
    prompt: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    expires_at: datetime | str | None = None,
    id: str | None = None,  # noqa: A002 the name that CloudEvents gives it
    time: datetime | str | None = None,
) -> ImageGenerated:
    """The event that announces an image; `id` defaults to a random UUID and `time` to now.

    Raises:
        ValueError: A value is wrong. The message names each that is, and repeats none: image URLs may be signed.
    """
    data = {
        "jobId": job_id,
        "userId": user_id,
        "imageUrl": image_url,
        "prompt": prompt,
        "metadata": None if metadata is None else dict(metadata),
        "expiresAt": expires_at,
    }
    envelope = {"id": str(uuid4()) if id is None else id, "source": source, "time": time or datetime.now(UTC)}
    try:
        return ImageGenerated.model_validate({**envelope, "data": data})
    except ValidationError as error:
        problems = f"the event is invalid: {problems_of(error)}"
    raise ValueError(problems)  # out here it carries no cause, which would repeat the values


class Publisher:
    """Publishes events, each persistent, mandatory and confirmed; it connects, and reconnects, as it publishes.

    Declares nothing: the worker, or `image-uploads declare`, does. Any number of publishes may be in flight.

    Args:
        amqp_url: RabbitMQ, `amqp://` or `amqps://`.
        timeout_s: Seconds that one's turn and connecting may take, and the broker's confirmation again.
    """

    def __init__(self, amqp_url: str, *, timeout_s: float = 30) -> None:
        self._amqp_url = SecretStr(amqp_url)
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None
        self._opening = asyncio.Lock()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._disconnect()

    async def publish(  # noqa: PLR0913 the fields of an event are what they are
        self,
        *,
        image_url: str,
        job_id: str | int,
        user_id: str | int,
        source: str,
        prompt: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | str | None = None,
        id: str | None = None,  # noqa: A002 the name that CloudEvents gives it
        time: datetime | str | None = None,
    ) -> str:
        """The broker has the event that announces an image; its id, which defaults to a random UUID.

        Args:
            image_url: `https:`, `http:`, `file:` (a path inside TEMP_DIR, one file per event) or `data:` in base64.
            job_id: What the image belongs to; it is in the object's name and in the completion.
            user_id: Whose image it is.
            source: Who speaks, such as `/generators/sdxl-3`; `(source, id)` identifies the event for ever.
            prompt: What the image was generated from.
            metadata: Kept with the output, at most 8 KiB as JSON.
            expires_at: When the output may be deleted.
            id: Give one of your own, and publishing it twice is harmless.
            time: When the image was generated; default now.

        Raises:
            ValueError: A value is wrong, or the event is too large; nothing was published.
            PublishError: The broker did not confirm it.
        """
        event = image_generated(
            image_url=image_url,
            job_id=job_id,
            user_id=user_id,
            source=source,
            prompt=prompt,
            metadata=metadata,
            expires_at=expires_at,
            id=id,
            time=time,
        )
        return await self.publish_event(event)

    async def publish_event(self, event: CloudEvent[Any]) -> str:
        """The broker has the event; its id.

        Raises:
            ValueError: The event is too large or cannot be decoded again; nothing was published.
            PublishError: The broker did not confirm it.
        """
        message = _message(event)
        # A returned message is matched by its id alone, so that the verdicts on two of one id could be swapped.
        turn = self._turns.setdefault(event.id, asyncio.Lock())
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await stack.enter_async_context(turn)
                    exchange = await self._open_exchange()
            except (BrokerError, *exceptions.CONNECTION_EXCEPTIONS) as error:
                raise PublishError(event.id, self._why_not_open(error), broker_may_have_it=False) from error
            await self._send(exchange, message, event)
        return event.id

    async def _send(self, exchange: AbstractExchange, message: Message, event: CloudEvent[Any]) -> None:
        try:
            with loss_is_no_cancellation():
                await exchange.publish(message, event.TYPE, mandatory=True, timeout=self._timeout_s)
        except asyncio.CancelledError:
            self._abandon(exchange)
            raise
        except exceptions.CONNECTION_EXCEPTIONS as error:
            if not isinstance(error, exceptions.DeliveryError):
                self._abandon(exchange)
            raise self._translated(error, event) from error

    def _translated(self, error: BaseException, event: CloudEvent[Any]) -> PublishError:
        match error:
            case exceptions.PublishError():
                problem, in_doubt = f"no queue is bound to {EXCHANGE} for {event.TYPE}: {HOW_TO_DECLARE}", False
            case exceptions.DeliveryError():
                # Of several queues one may have taken it, and a crashing queue may find it again.
                problem = "RabbitMQ refused it: a queue is full or failed"
                return RefusedError(event.id, problem, broker_may_have_it=True)
            case TimeoutError():
                problem, in_doubt = f"RabbitMQ did not confirm it within {self._timeout_s:g} s", True
            case exceptions.ChannelClosed():
                # The channel ends with the publish that is refused, and takes all the others with it.
                problem, in_doubt = f"RabbitMQ closed the channel: {words_of(error)}", len(self._turns) > 1
            case _:
                problem, in_doubt = f"the connection to RabbitMQ was lost: {words_of(error)}", True
        return PublishError(event.id, problem, broker_may_have_it=in_doubt)

    def _abandon(self, exchange: AbstractExchange) -> None:
        # A late verdict on this publish would be taken for the one on the event's next try. The channel stays open
        # for the others in flight on it, and ends with the connection.
        if self._exchange is exchange:
            self._exchange = None

    async def _open_exchange(self) -> AbstractExchange:
        async with self._opening:
            if self._exchange is None or self._channel is None or self._channel.is_closed:
                self._exchange = await self._reopen()
            return self._exchange

    def _why_not_open(self, error: BaseException) -> str:
        match error:
            case BrokerError():
                return str(error)
            case TimeoutError():
                return f"RabbitMQ did not answer within {self._timeout_s:g} s"
            case _:
                return words_of(error)

    async def _reopen(self) -> AbstractExchange:
        if self._connection is None or not self._connection.connected.is_set():
            await self._disconnect()
            self._connection = await connect(self._amqp_url, name="image-uploads producer", timeout_s=self._timeout_s)
        channel = self._connection.channel(publisher_confirms=True, on_return_raises=True)
        with loss_is_no_cancellation():
            await channel.initialize()
            exchange = await channel.get_exchange(EXCHANGE)  # which asks whether it is there
        self._channel = channel
        return exchange

    async def _disconnect(self) -> None:
        connection, self._connection, self._channel, self._exchange = self._connection, None, None, None
        if connection is not None:
            await close(connection)


def _message(event: CloudEvent[Any]) -> Message:
    body = event.body()
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"the event is larger than {MAX_BODY_BYTES} bytes: a large image needs a file: or https: URL")
    try:
        type(event).model_validate_json(body)  # its metadata may have been changed since it was made
    except ValidationError as error:
        problems = f"the event is invalid: {problems_of(error)}"
    else:
        return Message(
            body,
            content_type=CONTENT_TYPE,
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=event.id,
            correlation_id=getattr(event.data, "job_id", None),
        )
    raise ValueError(problems)
