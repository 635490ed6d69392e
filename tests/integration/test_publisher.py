"""The publisher and a real RabbitMQ: an id means that the broker has the event, an error says whether it may."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from producer import ImageGenerated, Publisher, PublishError, connection
from producer.publisher import image_generated
from sandbox.rabbitmq import RabbitMQ
from schemas.topology import EXCHANGE
from tests.faults.proxy import Proxy
from tests.named_servers import Broker

pytestmark = pytest.mark.real

GOOD: dict[str, Any] = {
    "image_url": "https://cdn.example.com/fox.png",
    "job_id": "abc123",
    "user_id": "test@factory-buy.com",
    "source": "/generators/test",
}


class Bind(Protocol):
    """Makes a queue that gets all events."""

    async def __call__(self, **arguments: str | int) -> AbstractQueue: ...


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(amqp_url) as broker, broker.channel() as channel:
        yield channel


@pytest.fixture
async def bind(channel: AbstractChannel) -> Bind:
    return await binder(channel)


async def binder(channel: AbstractChannel) -> Bind:
    exchange = await channel.declare_exchange(EXCHANGE, "topic", durable=True)

    async def bind(**arguments: str | int) -> AbstractQueue:
        named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
        queue = await channel.declare_queue("events", durable=True, arguments={"x-queue-type": "classic", **named})
        await queue.bind(exchange, "image.generated")
        return queue

    return bind


async def taken_from(queue: AbstractQueue) -> AbstractIncomingMessage:
    message = await queue.get(no_ack=True)
    assert message is not None
    return message


async def test_a_published_event_is_in_the_queue_with_its_properties(amqp_url: str, bind: Bind) -> None:
    queue = await bind()
    async with Publisher(amqp_url) as publisher:
        event_id = await publisher.publish(**GOOD, prompt="a red fox", metadata={"model": "sdxl"})
    message = await taken_from(queue)
    assert message.message_id == event_id
    assert message.correlation_id == "abc123"
    assert message.content_type == "application/cloudevents+json"
    assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
    assert (message.exchange, message.routing_key) == ("images", "image.generated")
    event = ImageGenerated.model_validate_json(message.body)
    assert (event.id, event.data.prompt, event.data.metadata) == (event_id, "a red fox", {"model": "sdxl"})
    assert {"specversion", "type"} <= json.loads(message.body).keys()


async def test_many_events_at_once_are_all_there(amqp_url: str, bind: Bind) -> None:
    queue = await bind()
    async with Publisher(amqp_url) as publisher:
        ids = await asyncio.gather(*(publisher.publish(**GOOD) for _ in range(200)))
    assert {(await taken_from(queue)).message_id for _ in ids} == set(ids)


async def test_two_publishes_of_one_id_take_turns(amqp_url: str, bind: Bind) -> None:
    queue = await bind()
    async with Publisher(amqp_url) as publisher:
        await asyncio.gather(*(publisher.publish(**GOOD, id="17") for _ in range(20)))
    assert [(await taken_from(queue)).message_id for _ in range(20)] == ["17"] * 20


async def test_an_event_that_no_queue_takes_is_not_published(amqp_url: str, channel: AbstractChannel) -> None:
    await channel.declare_exchange(EXCHANGE, "topic", durable=True)
    async with Publisher(amqp_url) as publisher:
        with pytest.raises(
            PublishError, match=r"is not published: no queue is bound .* `image-uploads declare`"
        ) as caught:
            await publisher.publish(**GOOD)
    assert not caught.value.broker_may_have_it


async def test_a_broker_without_the_exchange_is_an_error_that_names_the_mend(amqp_url: str) -> None:
    async with Publisher(amqp_url) as publisher:
        with pytest.raises(PublishError, match=r"is not published: .*no exchange images: .*`image-uploads declare`"):
            await publisher.publish(**GOOD)


async def test_publishing_works_once_what_was_missing_is_declared(amqp_url: str, channel: AbstractChannel) -> None:
    async with Publisher(amqp_url) as publisher:
        with pytest.raises(PublishError, match="no exchange"):
            await publisher.publish(**GOOD)
        bind = await binder(channel)
        with pytest.raises(PublishError, match="no queue"):
            await publisher.publish(**GOOD)
        await bind()
        assert await publisher.publish(**GOOD, id="17") == "17"


async def test_a_full_queue_is_an_error(amqp_url: str, bind: Bind) -> None:
    await bind(max_length=1, overflow="reject-publish")
    async with Publisher(amqp_url) as publisher:
        await publisher.publish(**GOOD)
        with pytest.raises(PublishError, match="may or may not be published: RabbitMQ refused it") as caught:
            await publisher.publish(**GOOD)
    assert caught.value.broker_may_have_it


async def test_an_exchange_that_goes_away_is_an_error_and_may_come_back(
    amqp_url: str, channel: AbstractChannel, bind: Bind
) -> None:
    await bind()
    async with Publisher(amqp_url) as publisher:
        await publisher.publish(**GOOD)
        await channel.exchange_delete(EXCHANGE)
        with pytest.raises(PublishError, match="is not published: RabbitMQ closed the channel"):
            await publisher.publish(**GOOD)
        queue = await (await binder(channel))()
        await queue.purge()
        event_id = await publisher.publish(**GOOD)
    assert (await taken_from(queue)).message_id == event_id


async def test_a_wrong_password_is_an_error_that_does_not_repeat_it(broker: Broker) -> None:
    host = broker.url.rpartition("@")[2]
    async with Publisher(f"amqp://nobody:canary@{host}") as publisher:
        with pytest.raises(PublishError, match="refused the login") as caught:
            await publisher.publish(**GOOD)
    assert "canary" not in repr(caught.value)


async def test_a_virtual_host_that_is_not_there_is_an_error(amqp_url: str) -> None:
    async with Publisher(amqp_url + "-gone") as publisher:
        with pytest.raises(PublishError, match="is not published: RabbitMQ has no such virtual host"):
            await publisher.publish(**GOOD)


async def test_a_cancelled_publish_leaves_the_publisher_usable(amqp_url: str, bind: Bind) -> None:
    await bind()
    async with Publisher(amqp_url) as publisher:
        await publisher.publish(**GOOD)
        doomed = asyncio.create_task(publisher.publish(**GOOD, id="17"))
        neighbours = [asyncio.create_task(publisher.publish(**GOOD)) for _ in range(10)]
        await asyncio.sleep(0)
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        await asyncio.gather(*neighbours)
        assert await publisher.publish(**GOOD, id="17") == "17"


async def test_a_broker_that_dies_and_comes_back_costs_one_error(
    private_rabbit: Callable[[], RabbitMQ],
) -> None:
    rabbit = private_rabbit()
    await declare(rabbit.url)
    async with Publisher(rabbit.url) as publisher:
        await publisher.publish(**GOOD)
        rabbit.kill()
        with pytest.raises(PublishError):
            await publisher.publish(**GOOD)
        await asyncio.to_thread(rabbit.start)
        assert await publisher.publish(**GOOD, id="17") == "17"


async def test_a_broker_that_freezes_may_have_the_event(amqp_url: str, bind: Bind) -> None:
    queue = await bind()
    event = image_generated(**GOOD)
    async with Proxy(amqp_url) as proxy, Publisher(proxy.url(), timeout_s=1) as publisher:
        await publisher.publish(**GOOD)
        proxy.to_client.frozen = True
        with pytest.raises(PublishError, match=r"may or may not be published: .*not confirm it within 1 s.*safe"):
            await publisher.publish_event(event)
        proxy.thaw()
        assert await publisher.publish_event(event) == event.id
    assert [(await taken_from(queue)).message_id for _ in range(3)][1:] == [event.id] * 2


async def test_a_connection_that_falls_silent_is_an_error_and_no_cancellation(
    amqp_url: str, bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_HEARTBEAT_S", 1)
    await bind()
    async with Proxy(amqp_url) as proxy, Publisher(proxy.url()) as publisher:
        await publisher.publish(**GOOD)
        proxy.freeze()
        with pytest.raises(PublishError, match="may or may not be published: the connection to RabbitMQ was lost"):
            await publisher.publish(**GOOD)
        proxy.thaw()


async def declare(url: str) -> None:
    async with await aio_pika.connect(url) as broker, broker.channel() as channel:
        await (await binder(channel))()
