"""Announcing again from rows, on a real broker and a real database."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from consumer.adapters import migrations, postgres, rabbit
from consumer.adapters.postgres_history import PostgresHistory, Span
from consumer.adapters.postgres_records import PostgresRecords
from consumer.adapters.rabbit_publisher import RabbitPublisher
from consumer.core.announcements import completed
from consumer.core.errors import DependencyError
from consumer.core.records import Cause
from consumer.operate.republish import Order, Tally, announce_again
from sandbox.process import free_port
from schemas import topology
from tests import samples

pytestmark = pytest.mark.real

Heard: TypeAlias = "asyncio.Queue[AbstractIncomingMessage]"

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
CANARY = "canary-that-nobody-may-see"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[postgres.Pool]:
    pool = await postgres.open_pool(database_url)
    await migrations.migrate(pool)
    yield pool
    await postgres.close_pool(pool)


@pytest.fixture
async def heard(amqp_url: str) -> AsyncIterator[Heard]:
    """What a subscriber hears, in its order."""
    messages: Heard = asyncio.Queue()
    async with await rabbit.connect(amqp_url, "test") as connection, connection.channel() as channel:
        exchange = await channel.declare_exchange(topology.EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(exclusive=True)
        for routing_key in ("image.upload.completed", "image.upload.failed"):
            await queue.bind(exchange, routing_key)
        await queue.consume(messages.put, no_ack=True)
        yield messages


async def announced(amqp_url: str, database_url: str, order: Order) -> Tally:
    broker, tally = RabbitPublisher(amqp_url, "test"), Tally()
    async with PostgresHistory.opened(database_url) as history:
        await announce_again(history, broker, order, tally, lambda output: output.url)
    await broker.close()
    return tally


async def test_rows_of_both_tables_are_announced_in_their_common_order_page_after_page(
    pool: postgres.Pool, heard: Heard, amqp_url: str, database_url: str
) -> None:
    records = PostgresRecords(pool)
    expected: list[str] = []
    for _ in range(2):
        # More outputs than one page has, then a few failures.
        outputs = [samples.output(samples.event()) for _ in range(300)]
        await asyncio.gather(*(records.record(output) for output in outputs))
        rows = await pool.fetch('SELECT "eventId" FROM job_outputs ORDER BY number DESC LIMIT 300')
        by_event = {output.event_id: completed(output, output.url).id for output in outputs}
        expected += [by_event[row[0]] for row in reversed(rows)]
        failures = [samples.failure(Cause.of(samples.event())) for _ in range(3)]
        expected += [str((await records.fail(failure)).id) for failure in failures]

    tally = await announced(amqp_url, database_url, Order(Span()))
    ids = [(await asyncio.wait_for(heard.get(), 30)).message_id for _ in expected]
    assert ids == expected
    assert (tally.completions, tally.failures) == (600, 6)
    assert heard.empty()


async def test_a_span_names_times_a_job_and_a_user(
    pool: postgres.Pool, heard: Heard, amqp_url: str, database_url: str
) -> None:
    records = PostgresRecords(pool)
    for hour in range(4):
        event = samples.event(job_id=f"job-{hour}", user_id=f"user-{hour % 2}")
        at = NOON + timedelta(hours=hour)
        if hour < 2:
            await records.record(samples.output(event, created_at=at))
        else:
            await records.fail(samples.failure(Cause.of(event), failed_at=at))
    for span, count in (
        (Span(since=NOON + timedelta(hours=1)), 3),
        (Span(until=NOON + timedelta(hours=3)), 3),
        (Span(since=NOON + timedelta(hours=1), until=NOON + timedelta(hours=2)), 1),
        (Span(job_id="job-2"), 1),
        (Span(user_id="user-1"), 2),
        (Span(user_id="user-1", job_id="job-2"), 0),
    ):
        assert (await announced(amqp_url, database_url, Order(span))).done == count
        jobs = [json.loads((await asyncio.wait_for(heard.get(), 30)).body)["data"]["jobId"] for _ in range(count)]
        assert jobs == sorted(jobs)
    assert heard.empty()


async def test_a_failure_that_names_no_job_is_not_announced_and_a_rehearsal_announces_nothing(
    pool: postgres.Pool, heard: Heard, amqp_url: str, database_url: str
) -> None:
    records = PostgresRecords(pool)
    await records.fail(samples.failure(Cause(fingerprint="of an unreadable message")))
    await records.record(samples.output(samples.event()))
    assert (await announced(amqp_url, database_url, Order(Span(), is_rehearsal=True))).done == 1
    assert (await announced(amqp_url, database_url, Order(Span(), limit=5))).done == 1
    await asyncio.wait_for(heard.get(), 30)
    assert heard.empty()


async def test_a_database_that_is_away_or_has_no_tables_is_told_in_one_sentence(database_url: str) -> None:
    async with PostgresHistory.opened(database_url) as history:
        with pytest.raises(DependencyError, match='relation "job_outputs" does not exist'):
            await history.last_number()
    away = f"postgresql://user:{CANARY}@127.0.0.1:{free_port()}/x"
    with pytest.raises(DependencyError, match=r"PostgreSQL at 127\.0\.0\.1:\d+/x does not answer") as caught:
        async with PostgresHistory.opened(away):
            pass
    assert CANARY not in str(caught.value)
