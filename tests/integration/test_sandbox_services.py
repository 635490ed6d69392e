from collections.abc import Callable

import aio_pika
import asyncpg
import pytest

pytestmark = pytest.mark.real


async def test_a_fresh_virtual_host_takes_connections(amqp_url: str) -> None:
    connection = await aio_pika.connect(amqp_url)
    await connection.close()


def test_every_virtual_host_is_another_one(amqp_vhost: Callable[[], str], rabbit_url: str, amqp_url: str) -> None:
    assert len({amqp_vhost(), amqp_vhost(), rabbit_url, amqp_url}) == 4


async def test_a_fresh_database_is_empty(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetch("SELECT * FROM pg_tables WHERE schemaname = 'public'") == []
    finally:
        await connection.close()
