"""What a listener hears, and how it learns that it no longer does, on a real RabbitMQ."""

import asyncio
from collections.abc import Callable

import aio_pika
import pytest

from consumer.adapters.rabbit import connect_and_declare
from producer.outcome import NoOutcomeError, Outcomes
from producer.publisher import image_generated
from sandbox.rabbitmq import RabbitMQ
from schemas.events import (
    CleanupCompleted,
    CleanupCompletedData,
    CleanupRequested,
    ImageOutputExpired,
    ImageOutputExpiredData,
    ImageUploadFailed,
    ImageUploadFailedData,
    output_id,
)
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
EXPIRED = ImageOutputExpired(
    id="expired",
    time=EVENT.time,
    data=ImageOutputExpiredData(
        output_id=output_id(EVENT.source, EVENT.id),
        job_id=EVENT.data.job_id,
        user_id=EVENT.data.user_id,
        oss_key="users/fox/a",
        expired_at=EVENT.time,
    ),
)
REQUEST = CleanupRequested(id="now", source="/operators/test", time=EVENT.time)
CLEANED = CleanupCompleted(
    id="cleaned",
    time=EVENT.time,
    data=CleanupCompletedData(cause_id="now", tasks={}, duration_s=0.1, dry_run=False, errors=()),
)
JUNK = (
    b"",
    b"{",
    b"[]",
    b"[" * 100_000,
    b'{"data": 7}',
    b'{"data": {"causeSource": [], "causeId": {}}}',
    b'{"data": {"outputId": 7}}',
)

KEYS = (
    "image.upload.completed",
    "image.upload.failed",
    "image.upload.delayed",
    "image.output.expired",
    "cleanup.completed",
)


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
                for key in KEYS:
                    await exchange.publish(aio_pika.Message(body), key)
            await exchange.publish(aio_pika.Message(FAILED.body()), FAILED.TYPE)
            async with asyncio.timeout(10):
                assert await outcome == FAILED
    assert not delays


async def test_an_event_that_is_repeated_after_its_output_has_expired_hears_of_that(rabbit_url: str) -> None:
    others = EXPIRED.data.model_copy(update={"output_id": output_id(EVENT.source, "another")})
    await declared(rabbit_url)
    async with Outcomes(rabbit_url) as outcomes, await aio_pika.connect(rabbit_url) as connection:
        exchange = await (await connection.channel()).get_exchange(EXCHANGE)
        with outcomes.of(EVENT) as outcome:
            for news in (EXPIRED.model_copy(update={"data": others}), EXPIRED):
                await exchange.publish(aio_pika.Message(news.body()), news.TYPE)
            async with asyncio.timeout(10):
                assert await outcome == EXPIRED


async def test_a_cleanup_hears_of_the_end_of_its_own_run_and_of_no_other(rabbit_url: str) -> None:
    others = CLEANED.data.model_copy(update={"cause_id": "another"})
    await declared(rabbit_url)
    async with Outcomes(rabbit_url) as outcomes, await aio_pika.connect(rabbit_url) as connection:
        exchange = await (await connection.channel()).get_exchange(EXCHANGE)
        with outcomes.of(REQUEST) as outcome:
            for news in (CLEANED.model_copy(update={"data": others}), CLEANED):
                await exchange.publish(aio_pika.Message(news.body()), news.TYPE)
            async with asyncio.timeout(10):
                assert await outcome == CLEANED
