"""Brokers and databases that go away and come back, under load."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from sandbox.postgres import ask
from tests.e2e.product_process import WorkerProcess
from tests.faults.campaign import campaign
from tests.faults.ledger import Verdict
from tests.faults.services import Services
from tests.faults.world import World

_PER_S: Final = 25
_MOST_S: Final = 10
_CALM_S: Final = 1.0
_CLOSE_ALL: Final = (
    # One may just be closing by itself.
    '[catch rabbit_networking:close_connection(P, <<"a fault run">>) || P <- rabbit_networking:connections()], ok'
)
_END_ALL: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""


@campaign(restarts=2)
async def broker_restarts(services: Services, *, restarts: int = 50) -> Verdict:
    """The broker is stopped in order and killed, in turn."""

    async def restart(number: int) -> None:
        # In order at first: RabbitMQ 3.10 may lose a quorum queue that was declared just before the node is killed.
        end = services.rabbitmq.kill if number % 2 else services.rabbitmq.stop
        await asyncio.to_thread(end)
        await asyncio.to_thread(services.rabbitmq.start)

    async with World.opened(services) as world:
        return await under_load(world, restarts, restart)


@campaign(closes=4)
async def connection_closes(services: Services, *, closes: int = 50) -> Verdict:
    """The broker closes all connections, and the network resets them, in turn."""
    async with World.opened(services) as world:

        async def close(number: int) -> None:
            if number % 2:
                await world.to_broker.reset()
            else:
                await asyncio.to_thread(services.rabbitmq.evaluate, _CLOSE_ALL)

        return await under_load(world, closes, close)


@campaign(restarts=3)
async def postgres_restarts(services: Services, *, restarts: int = 60) -> Verdict:
    """The database crashes, ends all sessions, and shuts down, in turn; it is back at once or some seconds later."""
    async with World.opened(services) as world:

        async def restart(number: int) -> None:
            rounds, turn = divmod(number, 3)
            if turn == 1:
                await asyncio.to_thread(ask, world.database_url, _END_ALL)
                return
            await asyncio.to_thread(services.postgres.stop if turn else services.postgres.kill)
            await asyncio.sleep(rounds % 3)
            await asyncio.to_thread(services.postgres.start)

        return await under_load(world, restarts, restart)


async def under_load(
    world: World, times: int, fault: Callable[[int], Awaitable[None]], *, costs_attempts: bool = False, **settings: str
) -> Verdict:
    """The fault has come so many times while two workers were working; each time they resumed soon after it."""
    random = Random(1)
    took_s: list[float] = []
    for worker in (world.start_worker(WorkerProcess, **settings), world.start_worker(WorkerProcess, **settings)):
        await world.attached(worker)
    async with world.load(per_s=_PER_S):
        await world.resumed()
        for number in range(times):
            await asyncio.sleep(random.uniform(0, _CALM_S))
            await fault(number)
            took_s.append(await world.resumed())
    verdict = await world.finish()
    if not costs_attempts:
        verdict.check("counted attempts", world.counted_attempts())
    verdict.check("resumed too late", [f"after {each:.1f} s" for each in took_s if each > _MOST_S])
    return verdict.told("longest wait for work in s", round(max(took_s), 1))
