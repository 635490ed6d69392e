"""Whatever keeps RabbitMQ from confirming, who published hears of it as a `BrokerError`, and of nothing else.

That a broker in a memory alarm does, too, is to be seen in `test_rabbit`, which has a node that it may block.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from consumer.adapters import rabbit, rabbit_publisher
from consumer.adapters.rabbit_publisher import RabbitPublisher
from consumer.core.errors import BrokerError
from tests.faults.proxy import Proxy
from tests.integration.canned_server import CannedServer, http
from tests.named_servers import Broker

pytestmark = pytest.mark.real

# Arguments of a publish, by what the broker answers; and the driver's word for it.
ANSWERS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "nack": ({"routing_key": "full"}, "DeliveryError"),
    "return": ({"routing_key": "nowhere"}, "PublishError"),
    "channel closed with 404": ({"exchange": "nowhere"}, "ChannelNotFoundEntity"),
    "channel closed with 403": ({"exchange": "internal"}, "ChannelAccessRefused"),
    "channel closed with 406": ({"expiration": -5}, "ChannelPreconditionFailed"),
}

Break: TypeAlias = Callable[[Proxy], Awaitable[None]]


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    """A broker with a queue that takes everything, one that is full, and an exchange for nobody."""
    async with await rabbit.connect(amqp_url, "test") as connection, connection.channel() as channel:
        await channel.declare_queue("empty")
        await channel.declare_queue("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        await channel.declare_exchange("internal", internal=True)
        yield channel


def lose_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbit_publisher, "_PUBLISH_TIMEOUT_S", 0.5)
    monkeypatch.setattr(rabbit, "CONNECT_TIMEOUT_S", 0.5)
    monkeypatch.setattr(rabbit, "_CLOSE_TIMEOUT_S", 0.2)


async def publish(
    publisher: RabbitPublisher, routing_key: str = "empty", *, exchange: str = "", expiration: float | None = None
) -> None:
    message = aio_pika.Message(b"fox", message_id=secrets.token_hex(8))
    message.expiration = expiration
    await publisher._publish(message, routing_key, exchange=exchange, mandatory=True)


@pytest.mark.parametrize("answer", ANSWERS)
async def test_each_refusal_is_told_and_the_next_message_is_taken(
    amqp_url: str, channel: AbstractChannel, answer: str
) -> None:
    arguments, driver_says = ANSWERS[answer]
    publisher = RabbitPublisher(amqp_url, "test")
    with pytest.raises(BrokerError) as caught:
        await publish(publisher, **arguments)
    assert type(caught.value.__cause__).__name__ == driver_says
    await publish(publisher)
    await publisher.close()


async def freeze(proxy: Proxy) -> None:
    proxy.freeze()


BREAKS: Final[dict[str, Break]] = {"frozen": freeze, "reset": Proxy.reset, "gone": Proxy.down}


@pytest.mark.parametrize("break_", BREAKS)
@pytest.mark.parametrize("line", ["open", "opening"])
async def test_each_broken_line_is_told(
    amqp_url: str, channel: AbstractChannel, break_: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Proxy(amqp_url) as proxy:
        publisher = RabbitPublisher(proxy.url(), "test")
        if line == "open":
            await publish(publisher)
        elif break_ == "reset":
            proxy.to_client.cut_when(b"AMQPLAIN")  # in the middle of the greeting
        if break_ == "frozen":
            lose_patience(monkeypatch)
        await BREAKS[break_](proxy)
        with pytest.raises(BrokerError):
            await publish(publisher)
        await publisher.close()


async def test_who_is_no_broker_or_does_not_let_us_in_is_told_without_the_password(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_patience(monkeypatch)
    async with CannedServer(http(400)) as server:
        port = server.url.rpartition(":")[2]
        for url in (
            f"amqp://guest:CANARY@127.0.0.1:{port}/",
            "amqp://guest:CANARY@127.0.0.1:1/",
            "amqp://guest:CANARY@no-such-host.invalid/",
            amqp_url.replace("guest:guest", "guest:CANARY"),
            amqp_url + "-that-is-not-there",
        ):
            publisher = RabbitPublisher(url, "test")
            for work in (publish(publisher), publisher.probe()):
                with pytest.raises(BrokerError) as caught:
                    await work
                assert "CANARY" not in str(caught.value)
            await publisher.close()


async def test_a_connection_that_the_broker_closes_by_force_is_told(broker: Broker) -> None:
    name = f"test-{secrets.token_hex(6)}"
    publisher = RabbitPublisher(broker.add_vhost(name), "test")
    await publisher.probe()
    await asyncio.to_thread(broker.delete_vhost, name)
    for work in (publish(publisher), publisher.probe()):
        with pytest.raises(BrokerError):
            await work
    await publisher.close()
