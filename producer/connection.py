"""Reaching RabbitMQ, and saying in one sentence why it could not be done."""

import asyncio
from contextlib import suppress
from typing import Final

from aio_pika import Connection
from aio_pika.abc import AbstractConnection
from aio_pika.connection import make_url
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AuthenticationError,
    ChannelNotFoundEntity,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from pydantic import SecretStr

from schemas.cancellation import loss_is_no_cancellation
from schemas.topology import EXCHANGE

HOW_TO_DECLARE: Final = "create what is missing with `image-uploads declare`, or start a worker"

# A dead peer is noticed after three of them; the default, 60 s, would take three minutes.
_HEARTBEAT_S: Final = 10
_CLOSE_TIMEOUT_S: Final = 5


class BrokerError(Exception):
    """RabbitMQ cannot be reached, or refuses us. The message is one sentence and holds no secret.

    Attributes:
        broker_may_have_it: Whether what was to be published may be in the broker all the same.
    """

    broker_may_have_it: bool = False


async def connect(amqp_url: SecretStr, *, name: str, timeout_s: float) -> Connection:
    """A connection that is open and shows as `name` in RabbitMQ's lists; it does not come back by itself.

    Raises:
        BrokerError: The URL is wrong, nobody answers there, or the login is refused.
    """
    connection = _connection(amqp_url, name)
    if connection is None:
        raise BrokerError("the AMQP URL is wrong: it must look like amqp://user:password@host:5672/vhost")
    try:
        with loss_is_no_cancellation():
            await connection.connect(timeout=timeout_s)
    except BaseException as error:
        await close(connection)  # else its finalizer does, in a task that nobody waits for
        if isinstance(error, CONNECTION_EXCEPTIONS):
            raise BrokerError(_why_not_connected(error, timeout_s)) from error
        raise
    return connection


async def close(connection: AbstractConnection) -> None:
    """The connection is closed, or left to itself if the broker does not answer any more."""
    with suppress(*CONNECTION_EXCEPTIONS), loss_is_no_cancellation():
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await connection.close()


def words_of(error: BaseException) -> str:
    """What went wrong, in one line: how to mend it where we know, else what the broker or the system said."""
    if isinstance(error, ChannelNotFoundEntity):  # the exchange is all that we use without making it
        return f"RabbitMQ has no exchange {EXCHANGE}: {HOW_TO_DECLARE}"
    last = error.args[-1] if error.args else None
    return last if isinstance(last, str) and last else type(error).__name__


def _why_not_connected(error: BaseException, timeout_s: float) -> str:
    match error:
        case TimeoutError():
            return f"RabbitMQ did not answer within {timeout_s:g} s"
        case AuthenticationError() | ProbableAuthenticationError():
            return "RabbitMQ refused the login: check the user and the password of the AMQP URL"
        case InvalidFrameError():  # aiormq's word for being sent away when it names the virtual host
            return "RabbitMQ has no such virtual host as the AMQP URL names, or not for this user"
        case _:
            return f"RabbitMQ cannot be reached: {words_of(error)}"


def _connection(amqp_url: SecretStr, name: str) -> Connection | None:
    # The parser's error repeats what it was given, password and all, and must not become anybody's context.
    try:
        url = make_url(amqp_url.get_secret_value(), heartbeat=_HEARTBEAT_S)
    except ValueError:
        return None
    if url.scheme not in ("amqp", "amqps") or not url.host:
        return None
    return Connection(url, client_properties={"connection_name": name})
