"""Connections to RabbitMQ, and what is declared over them."""

from collections.abc import Sequence
from typing import Final

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    IncompatibleProtocolError,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from yarl import URL

from consumer.core.errors import StartError
from schemas import topology

CONNECT_TIMEOUT_S: Final = 10
HEARTBEAT_S: Final = 10  # a dead peer is noticed after three of them; the library's 60 would mean three minutes
LOST: Final = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError)
"""What any call may raise when the broker is away; `RuntimeError` is what a closed channel raises."""


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
        await connection.connect(CONNECT_TIMEOUT_S)
    except BaseException as error:
        await connection.close()  # or the library would try to, when it is collected
        raise _refusal(error, url) or error from error
    return connection


def _refusal(error: BaseException, url: str) -> StartError | None:
    match error:
        case AuthenticationError() | ProbableAuthenticationError():
            return StartError(f"RabbitMQ at {address(url)} refuses the login: check user and password of AMQP_URL")
        case ConnectionNotAllowed() | InvalidFrameError():  # the latter when it closes instead of opening
            return StartError(
                f"RabbitMQ at {address(url)} refuses the virtual host: make it, or check the path of AMQP_URL"
            )
        case IncompatibleProtocolError():
            return StartError(f"what listens at {address(url)} does not speak AMQP: check AMQP_URL")
        case _:
            return None


async def declare(connection: AbstractConnection, retry_delays_s: Sequence[int]) -> None:
    """Exchange, queues and bindings exist as `schemas.topology` names them.

    Raises:
        StartError: something of that name exists with other arguments, and is left as it is.
    """
    # A refused declaration closes its channel, so each has one that can be thrown away.
    for queue in topology.queues(retry_delays_s):
        try:
            async with connection.channel() as channel:
                exchange = await channel.declare_exchange(topology.EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
                declared = await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
                for routing_key in queue.bindings:
                    await declared.bind(exchange, routing_key)
        except ChannelPreconditionFailed as error:
            raise StartError(
                f"{queue.name} or the exchange {topology.EXCHANGE} exists with other arguments ({error}): "
                "drain it, delete it, and start again"
            ) from error


async def queue_sizes(connection: AbstractConnection, queues: Sequence[str]) -> dict[str, int]:
    """Messages that are ready in each queue that exists."""
    sizes: dict[str, int] = {}
    for name in queues:
        try:
            async with connection.channel() as channel:
                queue = await channel.declare_queue(name, passive=True)
                sizes[name] = queue.declaration_result.message_count or 0
        except ChannelNotFoundEntity:
            continue
    return sizes
