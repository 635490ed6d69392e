"""RabbitMQ: it lets us in, has what a worker declares, takes what is published, and somebody works."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from shlex import quote
from typing import Final, Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import (
    AuthenticationError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    IncompatibleProtocolError,
    ProbableAuthenticationError,
)
from aiormq.exceptions import ChannelAccessRefused, PublishError
from yarl import URL

from consumer.adapters import rabbit
from consumer.check.finding import Finding, Subject
from consumer.check.shell import Shell
from consumer.core.errors import StartError
from consumer.settings import DeclareSettings
from schemas import topology
from schemas.cancellation import loss_is_no_cancellation

BROKER: Final = Subject("RabbitMQ")
_NAME: Final = "image-uploads check"
_PUBLISH_TIMEOUT_S: Final = 5
_NAMED: Final = 3
_USUAL_PORTS: Final = (None, 5671, 5672)
_EXCHANGE: Final = f"the exchange {topology.EXCHANGE}"


async def look(settings: DeclareSettings, shell: Shell) -> list[Finding]:
    """What there is to say of the broker; nothing in it has changed."""
    url = settings.amqp_url.get_secret_value()
    try:
        connection = await rabbit.connect(url, _NAME)
    except StartError as error:
        return [BROKER.wrong(str(error), _mend_refusal(error, url, shell))]
    except rabbit.LOST as error:
        parsed = URL(url)
        mend = shell.start(
            "rabbitmq-server", parsed.host, usual_port=parsed.explicit_port in _USUAL_PORTS, setting="AMQP_URL"
        )
        return [BROKER.wrong(f"nobody answers at {rabbit.address(url)}: {type(error).__name__}", mend)]
    try:
        topology_ = await _Topology.of(connection, settings.retry_delays_s)
        takes = await _takes_messages(connection, url)
    finally:
        await rabbit.close(connection)
    return [BROKER.ok(f"{rabbit.address(url)} lets us in"), *topology_.findings(url, shell), takes]


def _mend_refusal(error: StartError, url: str, shell: Shell) -> str:
    if isinstance(error.__cause__, AuthenticationError | ProbableAuthenticationError | IncompatibleProtocolError):
        return shell.ask("AMQP_URL")
    return f"sudo rabbitmqctl add_vhost {quote(_vhost(url))}; {_grant(url)}"


def _vhost(url: str) -> str:
    return URL(url).path.removeprefix("/") or "/"


def _grant(url: str) -> str:
    words = (_vhost(url), URL(url).user or "guest", ".*", ".*", ".*")
    return f"sudo rabbitmqctl set_permissions -p {' '.join(map(quote, words))}"


@dataclass(slots=True)
class _Topology:
    """What of `schemas.topology` the broker has."""

    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    workers: int = 0

    @classmethod
    async def of(cls, connection: AbstractConnection, retry_delays_s: Sequence[int]) -> Self:
        """The broker's; a refused question closes its channel, so each has one of its own."""
        found = cls()

        async def has_exchange(channel: AbstractChannel) -> None:
            await channel.get_exchange(topology.EXCHANGE)

        async def has_equal_exchange(channel: AbstractChannel) -> None:
            await channel.declare_exchange(topology.EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)

        await found._ask(connection, _EXCHANGE, has_exchange, has_equal_exchange)
        for queue in topology.queues(retry_delays_s):
            await found._ask_for(connection, queue)
        return found

    async def _ask_for(self, connection: AbstractConnection, queue: topology.Queue) -> None:
        async def has(channel: AbstractChannel) -> None:
            declared = await channel.declare_queue(queue.name, passive=True)
            if queue.name == topology.WORK_QUEUE:
                self.workers = declared.declaration_result.consumer_count or 0

        async def has_equal(channel: AbstractChannel) -> None:
            await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))

        await self._ask(connection, queue.name, has, has_equal)

    async def _ask(
        self,
        connection: AbstractConnection,
        name: str,
        *questions: Callable[[AbstractChannel], Awaitable[None]],
    ) -> None:
        """Each question in turn, for only what is there may be declared: a check makes nothing."""
        try:
            for question in questions:
                with loss_is_no_cancellation():
                    async with connection.channel() as channel:
                        await question(channel)
        except ChannelNotFoundEntity:
            self.missing.append(name)
        except ChannelPreconditionFailed:
            self.different.append(name)
        except ChannelAccessRefused:
            self.refused.append(name)

    def findings(self, url: str, shell: Shell) -> list[Finding]:
        """A line for what is wrong with them, or one that says that nothing is; and who works."""
        declare = shell.run("declare")
        found = [
            BROKER.wrong(f"{name} exists with other arguments: drain it first", f"{_delete(name, url)} && {declare}")
            for name in self.different
        ]
        if self.refused:
            text = f"{URL(url).user or 'guest'} may not declare {_several(self.refused)}, as a worker does at start"
            found.append(BROKER.wrong(text, _grant(url)))
        if self.missing:
            found.append(BROKER.wrong(f"not there: {_several(self.missing)}", declare))
        if not found:
            found.append(BROKER.ok(f"{_EXCHANGE} and all queues are there"))
        return [*found, self._who_works(shell)] if topology.WORK_QUEUE not in self.missing else found

    def _who_works(self, shell: Shell) -> Finding:
        if not self.workers:
            return BROKER.warning("no worker takes deliveries: events wait", shell.run("worker"))
        return BROKER.ok(f"workers that take deliveries: {self.workers}")


def _several(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _delete(name: str, url: str) -> str:
    vhost = quote(_vhost(url))
    if name == _EXCHANGE:
        return f"rabbitmqadmin -V {vhost} delete exchange name={topology.EXCHANGE}"
    return f"sudo rabbitmqctl delete_queue -p {vhost} {quote(name)} --if-empty"


async def _takes_messages(connection: AbstractConnection, url: str) -> Finding:
    """Whether it takes a message: one for a queue that nobody has, so that it comes straight back."""
    try:
        with loss_is_no_cancellation():
            async with asyncio.timeout(_PUBLISH_TIMEOUT_S), connection.channel(on_return_raises=True) as channel:
                nowhere = f"image-uploads.check.{token_hex(8)}"
                await channel.default_exchange.publish(aio_pika.Message(b""), nowhere, mandatory=True)
    except PublishError:
        return BROKER.ok("it takes messages")
    except ChannelAccessRefused:
        return BROKER.wrong(f"{URL(url).user or 'guest'} may not publish", _grant(url))
    except TimeoutError:
        text = "it takes no messages: its memory or disk is low, and it blocks publishers"
        return BROKER.wrong(text, "sudo rabbitmq-diagnostics check_local_alarms")
    raise ConnectionError("RabbitMQ confirmed a message for a queue that does not exist")
