"""What a listener hears, and how it learns that it no longer does, on a real RabbitMQ."""

import asyncio
from collections.abc import Callable

import aio_pika
import pytest

from consumer.adapters.rabbit import connect_and_declare
from producer.outcome import NoOutcomeError, Outcomes
from producer.publisher import image_generated
from sandbox.rabbitmq import RabbitMQ
from schemas.events import ImageUploadFailed, ImageUploadFailedData
from schemas.reasons import Reason
from schemas.topology import EXCHANGE

pytestmark = pytest.mark.real

EVENT = image_generated(image_url="https://x.example/a.png", job_id="abc123", user_id="fox", source="/generators/x")

FAILED = ImageUploadFailed(
    id="failed",
    time=EVENT.time,
    data=ImageUploadFailedData(
        cause_id=EVENT.id,
        cause_source=EVENT.source,
        job_id=EVENT.data.job_id,
        user_id=EVENT.data.user_id,
        reason=Reason.NOT_AN_IMAGE,
        detail="no image",
        attempts=1,
        failed_at=EVENT.time,
    ),
)
JUNK = (b"", b"{", b"[]", b"[" * 100_000, b'{"data": 7}', b'{"data": {"causeSource": [], "causeId": {}}}')


async def declared(url: str) -> None:
    await (await connect_and_declare(url, "test", [5])).close()


def delete_queue(rabbit: RabbitMQ) -> None:
    (queue,) = [line for line in rabbit.ctl("list_queues", "name").splitlines() if line.startswith("amq.gen")]
    rabbit.ctl("delete_queue", queue)


def close_channel(rabbit: RabbitMQ) -> None:
    """The broker closes the channel and leaves the connection, as after an ack of what it never delivered."""
    ack = "{method, {'basic.ack', 999, false}, none, noflow}"
    rabbit.ctl("eval", f"[gen_server2:cast(Channel, {ack}) || Channel <- rabbit_channel:list()].")


async def test_a_listener_whose_queue_or_channel_is_gone_knows_that_it_hears_no_more(
    private_rabbit: Callable[[], RabbitMQ],
) -> None:
    rabbit = private_rabbit()
    await declared(rabbit.url)
    for take_away in (delete_queue, close_channel):
        async with Outcomes(rabbit.url, on_delayed=lambda _: None) as outcomes:
            with outcomes.of(EVENT) as outcome:
                await asyncio.to_thread(take_away, rabbit)
                async with asyncio.timeout(10):
                    await outcomes.lost()
                    with pytest.raises(NoOutcomeError, match="before event"):
                        await outcome
            assert not outcomes._connection.is_closed
            with outcomes.of(EVENT) as too_late, pytest.raises(NoOutcomeError):
                await too_late


async def test_what_makes_no_sense_is_nobodys_outcome_and_ends_no_listener(rabbit_url: str) -> None:
    await declared(rabbit_url)
    delays: list[object] = []
    async with (
        Outcomes(rabbit_url, on_delayed=delays.append) as outcomes,
        await aio_pika.connect(rabbit_url) as connection,
        connection.channel() as channel,
    ):
        exchange = await channel.get_exchange(EXCHANGE)
        with outcomes.of(EVENT) as outcome:
            for body in JUNK:
                for key in ("image.upload.completed", "image.upload.failed", "image.upload.delayed"):
                    await exchange.publish(aio_pika.Message(body), key)
            await exchange.publish(aio_pika.Message(FAILED.body()), FAILED.TYPE)
            async with asyncio.timeout(10):
                assert await outcome == FAILED
    assert not delays
