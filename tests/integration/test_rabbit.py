import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from consumer.adapters import rabbit
from consumer.adapters.metrics import Metrics
from consumer.adapters.rabbit_consumer import RabbitConsumer, RabbitDelivery
from consumer.adapters.rabbit_publisher import RabbitPublisher
from consumer.core.announcements import completed
from consumer.core.errors import BrokerError, StalledError, StartError
from consumer.core.ports import Delivery
from sandbox.rabbitmq import RabbitMQ
from schemas import topology
from tests import samples
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.real


class Consuming:
    """A consumer whose deliveries a test takes out of a queue."""

    def __init__(
        self, url: str, *, prefetch: int = 10, retry_delays_s: tuple[int, ...] = (1, 600), look_every_s: float = 10
    ) -> None:
        self.metrics = Metrics()
        self.came: asyncio.Queue[Delivery] = asyncio.Queue()
        self.settled: dict[Delivery, asyncio.Event] = {}
        self.cancelled = 0
        self.consumer = RabbitConsumer(
            url,
            "test",
            prefetch=prefetch,
            retry_delays_s=retry_delays_s,
            take=self.take,
            meter=self.metrics,
            look_every_s=look_every_s,
        )
        self.running: asyncio.Task[None] | None = None

    async def take(self, delivery: Delivery) -> None:
        settled = self.settled[delivery] = asyncio.Event()
        self.came.put_nowait(delivery)
        try:
            await settled.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def settle(self, delivery: Delivery) -> None:
        await delivery.ack()
        self.settled[delivery].set()

    async def start(self) -> None:
        await self.consumer.start()
        self.running = asyncio.create_task(self.consumer.run())

    async def next(self) -> Delivery:
        return await asyncio.wait_for(self.came.get(), 30)

    async def stop(self) -> None:
        if self.running:
            self.running.cancel()
            await asyncio.wait((self.running,))
        await self.consumer.stop()
        await self.consumer.close()

    async def shows(self, metric: str, value: float) -> None:
        """The metric has, or gets, the value."""
        async with asyncio.timeout(30):
            while self.metrics.registry.get_sample_value(f"image_uploads_{metric}") != value:  # noqa: ASYNC110 it is polled, as Prometheus does
                await asyncio.sleep(0.01)

    def reconnects(self) -> float:
        return self.metrics.registry.get_sample_value("image_uploads_broker_reconnects_total") or 0


@pytest.fixture
async def consuming(amqp_url: str) -> AsyncIterator[Consuming]:
    consuming = Consuming(amqp_url)
    await consuming.start()
    yield consuming
    await consuming.stop()


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    async with (
        await rabbit.connect(amqp_url, "test") as connection,
        connection.channel(on_return_raises=True) as channel,
    ):
        yield channel


async def send(channel: AbstractChannel, body: bytes, **properties: Any) -> None:
    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, **properties)
    exchange = await channel.get_exchange(topology.EXCHANGE, ensure=False)
    await exchange.publish(message, "image.generated", mandatory=True)


async def get(channel: AbstractChannel, queue: str) -> AbstractIncomingMessage | None:
    declared = await channel.get_queue(queue)
    return await declared.get(no_ack=True, fail=False)


async def test_declaring_twice_is_declaring_once(amqp_url: str) -> None:
    async with await rabbit.connect(amqp_url, "test") as connection:
        await rabbit.declare(connection, (5, 30))
        await rabbit.declare(connection, (5, 30))
        sizes = await rabbit.queue_sizes(connection, [queue.name for queue in topology.queues((5, 30))])
    assert sizes == dict.fromkeys((queue.name for queue in topology.queues((5, 30))), 0)


async def test_queues_that_are_away_with_their_node_keep_no_upload_waiting(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on RabbitMQ 4, where whoever declares such a queue gets no answer, nor does whoever closes his channel."""
    declare_queue, close = aio_pika.Channel.declare_queue, aio_pika.Channel.close
    silent = []

    async def declared(channel: aio_pika.Channel, name: str, **more: Any) -> Any:
        if name not in topology.CLASSIC_QUEUES:
            return await declare_queue(channel, name, **more)
        silent.append(channel)
        return await asyncio.Event().wait()

    async def closed(channel: aio_pika.Channel, *more: Any) -> None:
        if channel in silent:
            await asyncio.Event().wait()
        await close(channel, *more)

    monkeypatch.setattr(aio_pika.Channel, "declare_queue", declared)
    monkeypatch.setattr(aio_pika.Channel, "close", closed)
    monkeypatch.setattr(rabbit, "_ANSWER_TIMEOUT_S", 0.2)
    async with asyncio.timeout(20), await rabbit.connect_and_declare(amqp_url, "test", (5,)) as connection:
        names = [queue.name for queue in topology.queues((5,)) if queue.name not in topology.CLASSIC_QUEUES]
        assert (await rabbit.queue_sizes(connection, names)).keys() == set(names)
    assert len(silent) == len(topology.CLASSIC_QUEUES)


async def test_a_queue_of_our_name_with_other_arguments_is_told_and_left(
    amqp_url: str, channel: AbstractChannel
) -> None:
    await channel.declare_queue(topology.WORK_QUEUE, durable=True, arguments={"x-queue-type": "classic"})
    async with await rabbit.connect(amqp_url, "test") as connection:
        with pytest.raises(StartError, match="image-uploads or the exchange images exists with other arguments"):
            await rabbit.declare(connection, (5,))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: url.replace("guest:guest", "guest:CANARY"), "refuses the login"),
        (lambda url: url.rpartition("/")[0] + "/no-such-vhost", "refuses the virtual host"),
    ],
)
async def test_a_broker_that_refuses_us_is_told_without_the_password(
    amqp_url: str, change: Callable[[str], str], says: str
) -> None:
    with pytest.raises(StartError, match=says) as caught:
        await rabbit.connect(change(amqp_url), "test")
    assert "CANARY" not in str(caught.value)
    assert "guest" not in str(caught.value)


async def test_what_is_not_acked_comes_again_and_what_is_acked_does_not(
    amqp_url: str, consuming: Consuming, channel: AbstractChannel
) -> None:
    await send(channel, b"acked")
    await send(channel, b"dropped")
    first, _second = await consuming.next(), await consuming.next()
    await first.ack()
    await consuming.stop()
    assert consuming.cancelled == 2
    heir = Consuming(amqp_url)
    await heir.start()
    assert (await heir.next()).body == b"dropped"
    await heir.stop()
    assert heir.came.empty()


async def test_no_more_than_the_prefetch_is_in_work(amqp_url: str, channel: AbstractChannel) -> None:
    consuming = Consuming(amqp_url, prefetch=3)
    await consuming.start()
    for number in range(5):
        await send(channel, b"%d" % number)
    taken = [await consuming.next() for _ in range(3)]
    # The one that came alone is not counted by the broker any more: one of the two waits here instead of there.
    assert (await consuming.consumer.queue_sizes())[topology.WORK_QUEUE] >= 1
    assert consuming.came.empty()
    await consuming.settle(taken[0])
    assert (await consuming.next()).body == b"3"
    await consuming.stop()


async def returned(amqp_url: str, channel: AbstractChannel, *bodies: bytes, times: int) -> None:
    """The work queue holds these messages, and each came back unsettled so often."""
    for body in bodies:
        await send(channel, body)
    for _ in range(times):
        async with await rabbit.connect(amqp_url, "crashing") as connection, connection.channel() as crashing:
            queue = await crashing.get_queue(topology.WORK_QUEUE)
            for _ in bodies:
                await queue.get()


async def test_after_a_start_what_came_back_often_is_taken_one_at_a_time_and_the_rest_at_once(
    amqp_url: str, channel: AbstractChannel
) -> None:
    consuming = Consuming(amqp_url)
    await consuming.consumer.start()
    await returned(amqp_url, channel, b"suspect", b"its neighbour", times=3)
    for number in range(5):
        await send(channel, b"%d" % number)
    consuming.running = asyncio.create_task(consuming.consumer.run())
    for body in (b"suspect", b"its neighbour"):
        delivery = await consuming.next()
        assert (delivery.body, delivery.is_suspect) == (body, True)
        assert (await consuming.consumer.queue_sizes())[topology.WORK_QUEUE] >= 5
        assert consuming.came.empty()
        await delivery.ack()
    rest = [await consuming.next() for _ in range(5)]
    assert [(delivery.body, delivery.is_suspect) for delivery in rest] == [
        (b"%d" % number, False) for number in range(5)
    ]
    await consuming.stop()


async def test_what_came_back_with_one_or_two_crashes_of_others_is_no_suspect(
    amqp_url: str, channel: AbstractChannel
) -> None:
    consuming = Consuming(amqp_url)
    await consuming.consumer.start()
    await returned(amqp_url, channel, b"fox", times=2)
    consuming.running = asyncio.create_task(consuming.consumer.run())
    delivery = await consuming.next()
    assert (delivery.is_suspect, delivery.is_first) == (False, False)
    await consuming.stop()


async def test_while_it_is_paused_nothing_comes_and_what_is_in_work_can_be_acked(
    amqp_url: str, consuming: Consuming, channel: AbstractChannel
) -> None:
    await send(channel, b"in work")
    delivery = await consuming.next()
    consuming.consumer.pause(paused=True)
    await consuming.shows("consumer_attached", 0)
    await send(channel, b"later")
    assert (await consuming.consumer.queue_sizes())[topology.WORK_QUEUE] == 1
    await delivery.ack()
    assert consuming.came.empty()
    consuming.consumer.pause(paused=False)
    assert (await consuming.next()).body == b"later"
    assert consuming.cancelled == 0


async def test_a_suspect_that_takes_its_time_is_no_stall(amqp_url: str, channel: AbstractChannel) -> None:
    consuming = Consuming(amqp_url, look_every_s=0.01)
    await consuming.consumer.start()
    await returned(amqp_url, channel, b"suspect", times=3)
    await send(channel, b"later")
    consuming.running = asyncio.create_task(consuming.consumer.run())
    delivery = await consuming.next()
    for _ in range(20):  # many a look later
        await consuming.consumer.queue_sizes()
    await consuming.settle(delivery)
    assert (await consuming.next()).body == b"later"
    assert (consuming.reconnects(), consuming.cancelled) == (0, 0)
    await consuming.stop()


async def test_nobody_becomes_a_suspect_by_a_header_of_its_publisher(
    consuming: Consuming, channel: AbstractChannel
) -> None:
    await send(channel, b"fox", headers={"x-delivery-count": 99, "x-acquired-count": 99})
    assert not (await consuming.next()).is_suspect


async def test_a_stop_in_the_middle_of_subscribing_keeps_what_is_in_work(
    amqp_url: str, channel: AbstractChannel
) -> None:
    async with Proxy(amqp_url) as proxy:
        consuming = Consuming(proxy.url(), prefetch=2)
        await consuming.start()
        await send(channel, b"fox")
        delivery = await consuming.next()
        await consuming.shows("consumer_attached", 1)
        proxy.to_client.latency_s = 0.2
        before = consuming.consumer._subscribing
        consuming.consumer.pause(paused=True)
        while consuming.consumer._subscribing is before:  # noqa: ASYNC110 nothing tells that it asks the broker
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # less than the answer takes
        assert consuming.running
        consuming.running.cancel()
        await asyncio.wait((consuming.running,))
        await consuming.consumer.stop()
        await consuming.settle(delivery)
        await consuming.stop()
        assert consuming.cancelled == 0
    assert await get(channel, topology.WORK_QUEUE) is None


async def test_a_broker_that_keeps_its_messages_is_subscribed_to_anew(amqp_url: str, channel: AbstractChannel) -> None:
    consuming = Consuming(amqp_url, look_every_s=0.05)
    await consuming.start()
    await consuming.shows("consumer_attached", 1)
    queue = consuming.consumer._queue
    assert queue is not None
    await queue.cancel(consuming.consumer._tag)  # behind its back
    await send(channel, b"kept")
    assert (await consuming.next()).body == b"kept"
    assert consuming.reconnects() == 1
    await consuming.stop()


async def test_a_broker_that_delivers_now_and_then_is_not_given_up(amqp_url: str, channel: AbstractChannel) -> None:
    consuming = Consuming(amqp_url)
    await consuming.start()
    consuming.consumer._looks_in_vain = 2  # it was slow, twice
    await send(channel, b"fox")
    await consuming.next()
    assert consuming.consumer._looks_in_vain == 0
    await consuming.stop()


async def test_a_broker_that_keeps_them_all_the_same_is_given_up(amqp_url: str, channel: AbstractChannel) -> None:
    consuming = Consuming(amqp_url, look_every_s=0.05)
    await consuming.consumer.start()
    consuming.consumer._subscribe = never  # type: ignore[assignment,method-assign]  # whatever it asks for, nothing comes
    await send(channel, b"kept")
    with pytest.raises(StalledError, match="RabbitMQ has 1 messages in image-uploads and delivers none"):
        await asyncio.wait_for(consuming.consumer.run(), 30)
    assert consuming.reconnects() == 1
    await consuming.stop()


async def never(*_: object) -> None:
    """No subscription is made."""


async def test_a_rung_gives_its_message_back_after_its_delay_with_our_header_and_without_the_brokers(
    amqp_url: str, consuming: Consuming, channel: AbstractChannel
) -> None:
    publisher = RabbitPublisher(amqp_url, "test")
    await send(
        channel,
        b"fox",
        headers={"x-own": "kept", "x-delivery-count": 7},
        message_id="m-1",
        correlation_id="abc123",
        content_type="application/json",
        expiration=60,
    )
    first = await consuming.next()
    assert first.is_first
    await publisher.copy(first, topology.rung_queue(1), {"x-attempt": 2})
    await first.ack()
    second = await consuming.next()
    assert isinstance(second, RabbitDelivery)
    assert (second.body, second.attempt, second.message_id) == (b"fox", 2, "m-1")
    assert "x-death" in second._message.headers
    assert (second.is_first, second.is_returned) == (False, False)
    await publisher.copy(second, topology.DEAD_QUEUE, {"x-reason": "source_gone"})
    await second.ack()
    dead = await get(channel, topology.DEAD_QUEUE)
    assert dead is not None
    stripped = {name: value for name, value in dead.headers.items() if name != "x-delivery-count"}  # given anew
    assert stripped == {"x-own": "kept", "x-attempt": 2, "x-reason": "source_gone"}
    assert (dead.correlation_id, dead.content_type, dead.expiration) == ("abc123", "application/json", None)
    await publisher.close()


async def test_what_names_no_id_has_the_same_one_in_every_copy(
    amqp_url: str, consuming: Consuming, channel: AbstractChannel
) -> None:
    publisher = RabbitPublisher(amqp_url, "test")
    await send(channel, b"fox")
    delivery = await consuming.next()
    assert isinstance(delivery, RabbitDelivery)
    delivery._message.message_id = None  # type: ignore[misc]  # our library would publish none without
    nameless = RabbitDelivery(delivery._message)
    for _ in range(2):
        await publisher.copy(nameless, topology.DEAD_QUEUE, {})
    copies = [await get(channel, topology.DEAD_QUEUE) for _ in range(2)]
    assert {copy.message_id for copy in copies if copy} == {nameless.message_id}
    await publisher.close()


async def test_headers_that_cannot_be_written_are_left_out_of_a_copy(
    amqp_url: str, consuming: Consuming, channel: AbstractChannel
) -> None:
    publisher = RabbitPublisher(amqp_url, "test")
    await send(channel, b"fox", headers={"x-own": "kept"})
    delivery = await consuming.next()
    assert isinstance(delivery, RabbitDelivery)
    delivery._message.headers["odd"] = b"\xe9"  # as the library reads text that is not UTF-8
    await publisher.copy(delivery, topology.DEAD_QUEUE, {"x-attempt": 2})
    await publisher.close()
    dead = await get(channel, topology.DEAD_QUEUE)
    assert dead is not None
    assert {**dead.headers, "x-delivery-count": 0} == {"x-own": "kept", "x-attempt": 2, "x-delivery-count": 0}


async def test_a_copy_goes_nowhere_but_where_it_is_sent(
    amqp_url: str, consuming: Consuming, channel: AbstractChannel
) -> None:
    publisher = RabbitPublisher(amqp_url, "test")
    await send(channel, b"fox", headers={"CC": [topology.rung_queue(600)]})
    delivery = await consuming.next()
    await publisher.copy(delivery, topology.DEAD_QUEUE, {})
    await publisher.close()
    assert await get(channel, topology.DEAD_QUEUE) is not None
    assert await get(channel, topology.rung_queue(600)) is None


@pytest.mark.parametrize("value", ["soon", None, -3, 2.5, True, [1], {"a": 1}])
async def test_a_header_that_is_no_number_makes_a_first_attempt(
    consuming: Consuming, channel: AbstractChannel, value: Any
) -> None:
    await send(channel, b"fox", headers={"x-attempt": value, "x-replays": value})
    delivery = await consuming.next()
    assert delivery.attempt >= 1
    assert delivery.replays >= 0
    await delivery.ack()


@pytest.mark.parametrize("value", [2**62, "9" * 30])
async def test_a_number_that_no_column_holds_is_a_smaller_one(
    consuming: Consuming, channel: AbstractChannel, value: Any
) -> None:
    await send(channel, b"fox", headers={"x-attempt": value, "x-replays": value})
    delivery = await consuming.next()
    assert max(delivery.attempt, delivery.replays) < 2**31
    await delivery.ack()


async def test_an_announcement_is_what_the_contract_says(amqp_url: str, channel: AbstractChannel) -> None:
    exchange = await channel.declare_exchange(topology.EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
    queue = await channel.declare_queue(exclusive=True, arguments={"x-queue-type": "classic"})
    await queue.bind(exchange, "image.upload.*")
    publisher = RabbitPublisher(amqp_url, "test")
    output = samples.output(samples.event())
    event = completed(output, output.url)
    await publisher.announce(event)
    message = await queue.get()
    assert message.routing_key == "image.upload.completed"
    assert (message.body, message.message_id, message.correlation_id) == (event.body(), event.id, "abc123")
    assert message.content_type == "application/cloudevents+json"
    assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
    await publisher.close()


async def test_a_consumer_that_the_broker_cancels_subscribes_anew(
    consuming: Consuming, channel: AbstractChannel
) -> None:
    subscribed = consuming.consumer._subscribed
    await subscribed.wait()
    lost = consuming.consumer._lost
    await channel.queue_delete(topology.WORK_QUEUE)
    await asyncio.wait_for(lost.wait(), 30)
    while consuming.consumer._lost is lost:  # noqa: ASYNC110 nothing tells that it subscribes anew
        await asyncio.sleep(0)
    await asyncio.wait_for(subscribed.wait(), 30)
    await send(channel, b"fox")
    assert (await consuming.next()).body == b"fox"


async def test_a_channel_that_the_broker_closes_is_made_anew(consuming: Consuming, channel: AbstractChannel) -> None:
    await send(channel, b"fox")
    delivery = await consuming.next()
    assert isinstance(delivery, RabbitDelivery)
    await delivery.ack()
    stale = delivery._message
    await stale.channel.basic_ack(stale.delivery_tag or 0)
    await send(channel, b"later")
    assert (await consuming.next()).body == b"later"
    assert consuming.reconnects() == 1
    assert consuming.consumer._in_hand == 1  # or the watchdog would take what was lost for work


@pytest.mark.usefixtures("consuming")
async def test_a_publisher_whose_connection_was_lost_makes_a_new_one(amqp_url: str) -> None:
    publisher = RabbitPublisher(amqp_url, "test")
    output = samples.output(samples.event())
    event = completed(output, output.url)
    await publisher.announce(event)
    lost = publisher._connection
    assert lost
    await lost.close()
    await publisher.announce(event)
    await publisher.close()


async def test_a_broker_that_restarts_is_waited_for_and_loses_nothing(private_rabbit: Callable[[], RabbitMQ]) -> None:
    server = private_rabbit()
    consuming = Consuming(server.url)
    await consuming.start()
    publisher = RabbitPublisher(server.url, "test")
    async with await rabbit.connect(server.url, "test") as connection, connection.channel() as channel:
        await send(channel, b"fox")
        delivery = await consuming.next()
    await asyncio.to_thread(server.stop)
    with pytest.raises(BrokerError):
        await publisher.copy(delivery, topology.DEAD_QUEUE, {})
    await delivery.ack()  # too late, and harmless
    assert consuming.cancelled == 1
    await asyncio.to_thread(server.start)
    again = await consuming.next()
    assert again.body == b"fox"
    await publisher.copy(again, topology.DEAD_QUEUE, {})
    await again.ack()
    assert consuming.reconnects() >= 1
    await consuming.stop()
    await publisher.close()


async def test_a_broker_that_blocks_publishers_is_named_and_takes_what_comes_afterwards(
    private_rabbit: Callable[[], RabbitMQ],
) -> None:
    server = private_rabbit()
    consuming = Consuming(server.url)
    await consuming.start()
    publisher = RabbitPublisher(server.url, "test")
    output = samples.output(samples.event())
    await publisher.announce(completed(output, output.url))
    await publisher.probe()
    await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    with pytest.raises(BrokerError):
        await publisher.announce(completed(output, output.url))
    with pytest.raises(BrokerError, match="alarm"):
        await publisher.probe()
    await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "absolute", "4GB")
    await publisher.announce(completed(output, output.url))
    await publisher.probe()
    await publisher.close()
    await consuming.stop()


async def test_an_absent_broker_is_waited_for_and_can_be_given_up(amqp_url: str) -> None:
    proxy = Proxy(amqp_url)  # not up yet
    consuming = Consuming(proxy.url())
    starting = asyncio.create_task(consuming.start())
    done, _ = await asyncio.wait((starting,), timeout=1.5)
    assert not done
    async with proxy:
        await asyncio.wait_for(starting, 30)
        await consuming.stop()
