"""Connections to RabbitMQ, and what is declared over them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AuthenticationError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    IncompatibleProtocolError,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from aiormq.exceptions import ConnectionNotAllowed
from yarl import URL

from consumer.adapters.amqp_decoding import read_anything
from consumer.core.errors import StartError
from consumer.core.redact import redact
from schemas import topology
from schemas.cancellation import loss_is_no_cancellation

CONNECT_TIMEOUT_S: Final = 10
_CLOSE_TIMEOUT_S: Final = 5
PAUSE_S: Final = 1.0
_ANSWER_TIMEOUT_S: Final = 2.0  # for what takes some milliseconds, and which no upload needs
HEARTBEAT_S: Final = 10  # a dead peer is noticed after three of them; the library's 60 would mean three minutes
_log = structlog.get_logger()

read_anything()

LOST: Final = (*CONNECTION_EXCEPTIONS, TimeoutError)
"""What any call may raise when the broker is away."""


def address(url: str) -> str:
    """Host, port and virtual host, without credentials."""
    parsed = URL(url)
    return f"{parsed.host}:{parsed.port or (5671 if parsed.scheme == 'amqps' else 5672)}{parsed.raw_path}"


async def connect(url: str, name: str) -> AbstractConnection:
    """A connection that stays lost once it is lost; `name` is what the broker's operator sees.

    Raises:
        StartError: the broker refuses us, and will go on doing so.
        OSError, AMQPError, TimeoutError: it is away.
    """
    parsed = URL(url)
    if "heartbeat" not in parsed.query:
        parsed = parsed.update_query(heartbeat=HEARTBEAT_S)
    connection = aio_pika.Connection(parsed, client_properties={"connection_name": name, "product": "image-uploads"})
    try:
        with loss_is_no_cancellation():
            await connection.connect(CONNECT_TIMEOUT_S)
    except BaseException as error:
        await connection.close()  # or the library would try to, when it is collected
        if refusal := _refusal(error, url):
            raise refusal from error
        raise
    return connection


async def close(connection: AbstractConnection | None) -> None:
    """The connection is closed, or left to itself if the broker does not answer any more."""
    if connection is not None:
        with suppress(*LOST), loss_is_no_cancellation():
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await connection.close()


def _refusal(error: BaseException, url: str) -> StartError | None:
    match error:
        case AuthenticationError() | ProbableAuthenticationError():
            return StartError(f"RabbitMQ at {address(url)} refuses the login: check user and password of AMQP_URL")
        case ConnectionNotAllowed() | InvalidFrameError():  # the latter when the broker closes instead of opening
            return StartError(
                f"RabbitMQ at {address(url)} refuses the virtual host: make it, or check the path of AMQP_URL"
            )
        case IncompatibleProtocolError():
            return StartError(f"what listens at {address(url)} does not speak AMQP: check AMQP_URL")
        case _:
            return None


async def prepare(url: str, name: str, retry_delays_s: Sequence[int]) -> AbstractConnection:
    """A connection to a broker that has everything; waits for one that is away.

    Raises:
        StartError: the broker refuses us, or has queues of our names with other arguments.
    """
    while True:
        try:
            return await connect_and_declare(url, name, retry_delays_s)
        except LOST as error:
            tell_waiting(url, error)
            await asyncio.sleep(PAUSE_S)


async def connect_and_declare(url: str, name: str, retry_delays_s: Sequence[int]) -> AbstractConnection:
    """A connection to a broker that has everything.

    Raises:
        StartError: as `prepare`.
        OSError, AMQPError, TimeoutError: it is away.
    """
    connection = await connect(url, name)
    try:
        await declare(connection, retry_delays_s)
    except BaseException:
        await close(connection)
        raise
    return connection


def tell_waiting(url: str, error: Exception) -> None:
    """The log says that the broker is waited for."""
    _log.warning("waiting for RabbitMQ", address=address(url), error=redact(str(error) or repr(error)))


async def declare(connection: AbstractConnection, retry_delays_s: Sequence[int]) -> None:
    """Exchange, queues and bindings exist as `schemas.topology` names them.

    A classic queue that is there, but not to be had because its node is away, is left to the next connection: until
    then RabbitMQ 3.10 says that there is none, and 4.0 says nothing.

    Raises:
        StartError: something of that name exists with other arguments, and is left as it is.
    """
    for queue in topology.queues(retry_delays_s):
        is_classic = queue.name in topology.CLASSIC_QUEUES
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S if is_classic else None):
                await _declare_queue(connection, queue)
        except (ChannelNotFoundEntity, TimeoutError) as error:
            if not is_classic:
                raise
            # None of them is needed for an upload, and a cluster that has lost one node goes on uploading.
            _log.warning("a queue is away with its node", queue=queue.name, error=redact(str(error) or "no answer"))
        except ChannelPreconditionFailed as error:
            raise StartError(
                f"{queue.name} or the exchange {topology.EXCHANGE} exists with other arguments ({error}): "
                "drain it, delete it, and start again"
            ) from error


async def _declare_queue(connection: AbstractConnection, queue: topology.Queue) -> None:
    async with _passing_channel(connection) as channel:
        exchange = await channel.declare_exchange(topology.EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        declared = await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
        for routing_key in queue.bindings:
            await declared.bind(exchange, routing_key)


async def queue_sizes(connection: AbstractConnection, queues: Sequence[str]) -> dict[str, int]:
    """Messages that are ready in each queue that exists.

    Raises:
        OSError, AMQPError, TimeoutError: the broker is away.
    """
    sizes: dict[str, int] = {}
    for name in queues:
        try:
            async with _passing_channel(connection) as channel:
                queue = await channel.declare_queue(name, passive=True)
                sizes[name] = queue.declaration_result.message_count or 0
        except ChannelNotFoundEntity:
            continue
    return sizes


@asynccontextmanager
async def _passing_channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    """A channel for one question, since a refusal closes it; it is left to itself if the broker does not answer."""
    with loss_is_no_cancellation():
        channel = await connection.channel()
        try:
            yield channel
        finally:
            with suppress(*LOST):
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    await channel.close()
