"""One suite for the ports `Broker` and `Delivery`: the fakes, and RabbitMQ."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import aio_pika
import pytest

from consumer.adapters import rabbit
from consumer.adapters.metrics import Metrics
from consumer.adapters.rabbit_consumer import RabbitConsumer
from consumer.adapters.rabbit_publisher import RabbitPublisher
from consumer.core.announcements import completed
from consumer.core.errors import BrokerError
from consumer.core.ports import Broker, Delivery
from schemas import topology
from tests import samples
from tests.fakes import FakeBroker, FakeDelivery

Held = list[tuple[bytes, dict[str, object]]]


class Place(NamedTuple):
    """A broker, how to get a delivery of some bytes from it, and what a queue holds."""

    broker: Broker
    deliver: Callable[[bytes, dict[str, str | int]], Awaitable[Delivery]]
    held: Callable[[str], Awaitable[Held]]


@pytest.fixture
async def real(amqp_url: str) -> AsyncIterator[Place]:
    came: asyncio.Queue[Delivery] = asyncio.Queue()
    consumer = RabbitConsumer(amqp_url, "contract", prefetch=10, retry_delays_s=(600,), take=came.put, meter=Metrics())
    await consumer.start()
    running = asyncio.create_task(consumer.run())
    broker = RabbitPublisher(amqp_url, "contract")
    connection = await rabbit.connect(amqp_url, "test")
    channel = await connection.channel(on_return_raises=True)

    async def deliver(body: bytes, headers: dict[str, str | int]) -> Delivery:
        message = aio_pika.Message(body, headers=dict(headers), message_id="m-1", content_type="application/json")
        await channel.default_exchange.publish(message, topology.WORK_QUEUE)
        return await came.get()

    async def held(queue: str) -> Held:
        found: Held = []
        declared = await channel.get_queue(queue)
        while (message := await declared.get(no_ack=True, fail=False)) is not None:
            assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
            assert message.message_id == "m-1"
            found.append((message.body, dict(message.headers)))
        return found

    yield Place(broker, deliver, held)
    running.cancel()
    await asyncio.wait((running,))
    await consumer.stop()
    await consumer.close()
    await broker.close()
    await connection.close()


@pytest.fixture(params=["fake", pytest.param("RabbitMQ", marks=pytest.mark.real)])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "RabbitMQ":
        found: Place = request.getfixturevalue("real")
        return found
    queues = tuple(queue.name for queue in topology.queues((600,)))
    broker = FakeBroker(queues=queues)

    async def deliver(body: bytes, headers: dict[str, str | int]) -> Delivery:
        return FakeDelivery(
            body, attempt=int(headers.get("x-attempt", 1)), replays=int(headers.get("x-replays", 0)), message_id="m-1"
        )

    async def held(queue: str) -> Held:
        return [(body, dict(headers)) for body, headers in broker.queues.pop(queue, [])]

    return Place(broker, deliver, held)


async def test_a_delivery_is_the_first_attempt_of_no_replay_unless_its_headers_say_otherwise(place: Place) -> None:
    delivery = await place.deliver(b"one", {})
    assert (delivery.body, delivery.attempt, delivery.replays, delivery.message_id) == (b"one", 1, 0, "m-1")
    assert delivery.is_first
    delivery = await place.deliver(b"two", {"x-attempt": 4, "x-replays": 2})
    assert (delivery.body, delivery.attempt, delivery.replays) == (b"two", 4, 2)


async def test_a_copy_is_in_its_queue_with_the_new_headers(place: Place) -> None:
    delivery = await place.deliver(b"one", {"x-attempt": 4})
    await place.broker.copy(delivery, topology.rung_queue(600), {"x-attempt": 5})
    await delivery.ack()
    ((body, headers),) = await place.held(topology.rung_queue(600))
    assert body == b"one"
    assert headers["x-attempt"] == 5


async def test_a_copy_into_a_queue_that_does_not_exist_is_an_error(place: Place) -> None:
    delivery = await place.deliver(b"one", {})
    with pytest.raises(BrokerError):
        await place.broker.copy(delivery, "no-such-queue", {})
    await place.broker.copy(delivery, topology.DEAD_QUEUE, {})  # and the next one works
    assert len(await place.held(topology.DEAD_QUEUE)) == 1


async def test_copies_of_one_message_at_once_each_get_their_own_verdict(place: Place) -> None:
    delivery = await place.deliver(b"one", {})
    queues = ["no-such-queue", topology.DEAD_QUEUE] * 20
    verdicts = await asyncio.gather(
        *(place.broker.copy(delivery, queue, {}) for queue in queues), return_exceptions=True
    )
    assert [isinstance(verdict, BrokerError) for verdict in verdicts] == [True, False] * 20
    assert len(await place.held(topology.DEAD_QUEUE)) == 20


async def test_an_announcement_succeeds_even_if_nobody_listens(place: Place) -> None:
    output = samples.output(samples.event())
    await place.broker.announce(completed(output, output.url))


async def test_many_copies_of_one_message_at_once_all_arrive(place: Place) -> None:
    delivery = await place.deliver(b"one", {})
    await asyncio.gather(*(place.broker.copy(delivery, topology.DEAD_QUEUE, {"n": n}) for n in range(20)))
    assert sorted(headers["n"] for _, headers in await place.held(topology.DEAD_QUEUE)) == list(range(20))  # type: ignore[type-var]  # numbers, all of them
