"""The scheduled message, in a real broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import aio_pika
import pytest
from aio_pika.abc import AbstractConnection

from consumer.adapters import rabbit
from consumer.adapters.rabbit_schedule import RabbitSchedule
from consumer.core.errors import BrokerError
from consumer.core.ports import CleanupDelivery
from schemas import topology
from schemas.events import OUR_SOURCE, CleanupRequested
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.real

LADDER = (1, 600)
QUEUES = (topology.CLEANUP_QUEUE, topology.CLEANUP_SCHEDULE_QUEUE)


@dataclass(eq=False)
class Taken:
    """A delivery that a worker has in its hands until the test says so."""

    delivery: CleanupDelivery
    done: asyncio.Event
    was_cancelled: bool = False

    @property
    def request(self) -> CleanupRequested:
        return CleanupRequested.model_validate_json(self.delivery.body)


class Worker:
    """Takes ticks and requests as a worker does: when one is done, the schedule is armed, and the delivery acked."""

    def __init__(self, url: str, interval_s: int) -> None:
        self.schedule = RabbitSchedule(url, "test", interval_s=interval_s, retry_delays_s=LADDER)
        self._came: asyncio.Queue[Taken] = asyncio.Queue()

    async def take(self, delivery: CleanupDelivery) -> None:
        taken = Taken(delivery, asyncio.Event())
        self._came.put_nowait(taken)
        try:
            await taken.done.wait()
        except asyncio.CancelledError:
            taken.was_cancelled = True
            raise
        await self.schedule.arm()
        await delivery.ack()

    async def next(self) -> Taken:
        return await asyncio.wait_for(self._came.get(), 30)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Worker"]:
        self._running = asyncio.create_task(self.schedule.run(self.take))
        try:
            yield self
        finally:
            await self.end()

    async def end(self) -> None:
        self._running.cancel()
        await asyncio.wait((self._running,))


@pytest.fixture
async def connection(amqp_url: str) -> AsyncIterator[AbstractConnection]:
    async with await rabbit.connect_and_declare(amqp_url, "test", LADDER) as connection:
        yield connection


async def sizes(connection: AbstractConnection) -> tuple[int, int]:
    """Ready messages of `cleanup`, and of the schedule."""
    found = await rabbit.queue_sizes(connection, QUEUES)
    return found[topology.CLEANUP_QUEUE], found[topology.CLEANUP_SCHEDULE_QUEUE]


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await is_so():  # noqa: ASYNC110 the broker tells nobody, it must be asked
            await asyncio.sleep(0.02)


async def armed(connection: AbstractConnection) -> None:
    async def is_armed() -> bool:
        return (await sizes(connection))[1] == 1

    await until(is_armed)


async def ask(connection: AbstractConnection, name: str) -> None:
    request = CleanupRequested(id=name, source="/operators/test", time=datetime.now(UTC))
    async with connection.channel(on_return_raises=True) as channel:
        exchange = await channel.get_exchange(topology.EXCHANGE, ensure=False)
        await exchange.publish(aio_pika.Message(request.body()), "cleanup.requested", mandatory=True)


async def put(connection: AbstractConnection, queue: str) -> None:
    async with connection.channel(on_return_raises=True) as channel:
        await channel.default_exchange.publish(aio_pika.Message(b"an event"), queue, mandatory=True)


async def purge(connection: AbstractConnection, queue: str) -> None:
    async with connection.channel() as channel:
        await (await channel.get_queue(queue, ensure=False)).purge()


async def test_however_many_arm_it_one_tick_is_pending(amqp_url: str, connection: AbstractConnection) -> None:
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(Worker(amqp_url, 600).running()) for _ in range(5)]
        await armed(connection)
        await until_connected(workers)
        await asyncio.gather(*(worker.schedule.arm() for worker in workers for _ in range(10)))
        assert await sizes(connection) == (0, 1)


async def until_connected(workers: list[Worker]) -> None:
    async def are() -> bool:
        try:
            return all([await worker.schedule.is_empty() for worker in workers])
        except BrokerError:
            return False

    await until(are)


async def test_a_tick_comes_when_its_time_is_over_and_the_next_an_interval_later(
    amqp_url: str, connection: AbstractConnection
) -> None:
    async with Worker(amqp_url, 1).running() as worker:
        times, names = [], set()
        for _ in range(3):
            tick = await worker.next()
            times.append(asyncio.get_running_loop().time())
            names.add(tick.request.id)
            assert tick.delivery.is_tick
            assert tick.request.source == OUR_SOURCE
            assert tick.request.data.tasks == ("temp", "expired", "orphans")
            tick.done.set()
        assert len(names) == 3
        assert min(later - earlier for earlier, later in pairwise(times)) >= 0.9
        await armed(connection)


async def test_a_request_is_taken_at_once_and_is_no_tick(amqp_url: str, connection: AbstractConnection) -> None:
    async with Worker(amqp_url, 600).running() as worker:
        await ask(connection, "now")
        request = await worker.next()
        assert (request.request.id, request.delivery.is_tick) == ("now", False)


async def test_ticks_do_not_heap_up_behind_a_long_run(amqp_url: str, connection: AbstractConnection) -> None:
    async with Worker(amqp_url, 1).running() as first, Worker(amqp_url, 1).running() as second:
        busy = await first_of(first, second)

        async def one_waits() -> bool:
            return (await sizes(connection))[0] == 1

        await until(one_waits)
        ends = asyncio.get_running_loop().time() + 2.5
        while asyncio.get_running_loop().time() < ends:
            waiting, pending = await sizes(connection)
            assert waiting == 1
            assert pending <= 1
        busy.done.set()
        assert (await first_of(first, second)).request.id != busy.request.id


async def first_of(*workers: Worker) -> Taken:
    asked = [asyncio.create_task(worker.next()) for worker in workers]
    done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    (first,) = done
    return first.result()


async def test_after_a_time_without_workers_one_tick_waits(amqp_url: str, connection: AbstractConnection) -> None:
    async with Worker(amqp_url, 1).running():
        await armed(connection)

    async def has_come() -> bool:
        return await sizes(connection) == (1, 0)

    await until(has_come)
    async with Worker(amqp_url, 1).running() as worker:
        (await worker.next()).done.set()
        began = asyncio.get_running_loop().time()
        await worker.next()
        assert asyncio.get_running_loop().time() - began >= 0.9


async def test_a_worker_that_ends_in_the_middle_leaves_its_tick_to_another(amqp_url: str) -> None:
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(Worker(amqp_url, 1).running())
        tick = await worker.next()
        heir = await stack.enter_async_context(Worker(amqp_url, 1).running())
        await until_connected([heir])
        await worker.end()
        assert tick.was_cancelled
        again = await heir.next()
        assert again.request.id == tick.request.id
        again.done.set()
        assert (await heir.next()).request.id != tick.request.id


async def test_a_lost_connection_ends_the_run_and_the_tick_comes_again(amqp_url: str) -> None:
    async with Proxy(amqp_url) as proxy, Worker(proxy.url(), 1).running() as worker:
        tick = await worker.next()
        await proxy.reset()
        again = await worker.next()
        assert tick.was_cancelled
        assert again.request.id == tick.request.id
        again.done.set()
        await worker.next()


async def test_a_run_that_somebody_else_cancelled_does_not_stop_the_schedule(amqp_url: str) -> None:
    worker = Worker(amqp_url, 1)
    take, names = worker.take, []

    async def stray(delivery: CleanupDelivery) -> None:
        names.append(CleanupRequested.model_validate_json(delivery.body).id)
        if len(names) == 1:
            raise asyncio.CancelledError
        await take(delivery)

    worker.take = stray  # type: ignore[method-assign]
    async with worker.running():
        (await worker.next()).done.set()
        assert names[1] == names[0]
        await worker.next()


async def test_another_interval_holds_from_the_next_tick_on(amqp_url: str, connection: AbstractConnection) -> None:
    async with Worker(amqp_url, 600).running():
        await armed(connection)
    async with Worker(amqp_url, 1).running() as worker:
        await until_connected([worker])
        await worker.schedule.arm()
        assert await sizes(connection) == (0, 1)  # still the one of before
        await purge(connection, topology.CLEANUP_SCHEDULE_QUEUE)  # as if its time were over
        await worker.schedule.arm()
        assert (await worker.next()).delivery.is_tick


async def test_without_an_interval_nothing_is_armed_and_requests_are_taken(
    amqp_url: str, connection: AbstractConnection
) -> None:
    async with Worker(amqp_url, 0).running() as worker:
        await ask(connection, "by hand")
        request = await worker.next()
        request.done.set()
        assert request.request.id == "by hand"
        await ask(connection, "once more")  # when it comes, the end of the first is behind us
        await worker.next()
        assert await sizes(connection) == (0, 0)


@pytest.mark.parametrize("queue", QUEUES)
async def test_a_queue_that_somebody_deleted_is_made_anew(
    amqp_url: str, connection: AbstractConnection, queue: str
) -> None:
    async with Worker(amqp_url, 1).running() as worker:
        (await worker.next()).done.set()
        async with connection.channel() as channel:
            await channel.queue_delete(queue)
        ticks = [await worker.next()]
        ticks[0].done.set()
        ticks.append(await worker.next())
        assert all(tick.delivery.is_tick for tick in ticks)


@pytest.mark.parametrize("queue", [topology.WORK_QUEUE, *map(topology.rung_queue, LADDER[1:])])
async def test_whatever_waits_in_the_queue_or_on_a_rung_is_a_backlog(
    amqp_url: str, connection: AbstractConnection, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Worker(amqp_url, 0).running() as worker:
        await until_connected([worker])
        await put(connection, queue)
        assert not await worker.schedule.is_empty()
        with monkeypatch.context() as patch:
            patch.setattr(rabbit, "queue_sizes", _nothing_counted)  # as a queue that is slow to answer
            assert not await worker.schedule.is_empty()
        assert (await rabbit.queue_sizes(connection, [queue]))[queue] == 1  # it was only looked at
        await purge(connection, queue)
        assert await worker.schedule.is_empty()


async def _nothing_counted(_connection: AbstractConnection, queues: list[str]) -> dict[str, int]:
    return dict.fromkeys(queues, 0)


async def test_its_own_queues_are_counted_while_it_is_connected(amqp_url: str, connection: AbstractConnection) -> None:
    schedule = RabbitSchedule(amqp_url, "test", interval_s=3600, retry_delays_s=LADDER)
    assert await schedule.queue_sizes() == {}
    worker = Worker(amqp_url, 3600)
    async with worker.running():
        while (await worker.schedule.queue_sizes()).get(topology.CLEANUP_SCHEDULE_QUEUE) != 1:  # noqa: ASYNC110 a count
            await asyncio.sleep(0)
        assert (await worker.schedule.queue_sizes()).keys() == set(topology.CLASSIC_QUEUES)


async def test_without_a_connection_nobody_knows_what_waits(amqp_url: str) -> None:
    with pytest.raises(BrokerError):
        await Worker(amqp_url, 1).schedule.is_empty()


async def test_a_rung_that_nobody_has_declared_holds_nothing(amqp_url: str, connection: AbstractConnection) -> None:
    async with Worker(amqp_url, 0).running() as worker:
        await until_connected([worker])
        async with connection.channel() as channel:
            await channel.queue_delete(topology.rung_queue(LADDER[1]))
        assert await worker.schedule.is_empty()
