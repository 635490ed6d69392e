"""Workers that are killed, or stopped, in the middle of their work."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import islice
from random import Random
from typing import Final

from schemas.reasons import Reason
from tests.e2e.product_process import WorkerProcess
from tests.faults.campaign import campaign
from tests.faults.ledger import Verdict
from tests.faults.mixture import picture
from tests.faults.points import FATAL_URL
from tests.faults.services import Services
from tests.faults.world import PointsWorker, World, in_flight

_WORKERS: Final = 2
_SLOW_SOURCE_S: Final = 0.02  # so that there is work to fall into
_MOST_BEHIND: Final = 200
_DRAIN_TIMEOUT_S: Final = 25
_RESTART_LOOK_S: Final = 0.05


@campaign(kills=30, events=1500)
async def kills(services: Services, *, kills: int = 500, events: int = 20_000) -> Verdict:
    """Two workers are killed in turn, each time with deliveries in work."""
    async with World.opened(services) as world:
        in_work = await _rounds(world, kills, events, _kill)
        return (await world.finish()).told("deliveries in work when killed", sum(in_work))


@campaign(stops=4, events=120)
async def stops(services: Services, *, stops: int = 200, events: int = 8000) -> Verdict:
    """Two workers are stopped in turn while they work; each ends in time, and nothing is done twice."""
    async with World.opened(services) as world:
        world.mixture.duplicates = 0
        took_s = await _rounds(world, stops, events, _stop)
        verdict = await world.finish()
        verdict.check("uploaded twice", [key for key, puts in world.oss.puts.items() if puts > 1])
        verdict.check("announced twice", [str(name) for name, heard in world.ledger.completions.items() if heard > 1])
        verdict.check("stopped too late", [f"{each:.1f} s" for each in took_s if each > _DRAIN_TIMEOUT_S])
        return verdict.told("longest stop in s", max(took_s))


@campaign(events=100)
async def crash_loop(services: Services, *, events: int = 500) -> Verdict:
    """One event kills every worker that fetches its image, among others that must not suffer from it."""
    async with World.opened(services) as world:
        fatal = world.mixture.named("fatal.png", picture(0), Reason.CRASH_LOOP)
        assert fatal.event
        good = list(world.mixture.events(events))
        for planned in (*good[: events // 2], fatal, *good[events // 2 :]):
            await world.generator.publish(planned)
        async with _supervised(world, FATAL_URL, fatal.event.data.image_url):
            await world.settled()
            crashes = sum(not worker.alive for worker in world.workers)
        return (await world.finish()).told("crashes", crashes)


async def _rounds(
    world: World, rounds: int, events: int, end: Callable[[WorkerProcess], Awaitable[float]]
) -> list[float]:
    """So many workers have ended while the events were worked off; what each end came to."""
    random = Random(1)
    world.to_web.to_client.latency_s = _SLOW_SOURCE_S
    stream = world.mixture.events(events)
    pair = [world.start_worker() for _ in range(_WORKERS)]
    for worker in pair:
        await world.attached(worker)
    came_to = []
    for number in range(rounds):
        batch = islice(stream, events // rounds)
        publishing = asyncio.create_task(world.generator.publish_all(batch, per_s=1000))
        victim = pair[number % _WORKERS]
        await world.busy(victim)
        await asyncio.sleep(random.uniform(0, 2 * _SLOW_SOURCE_S))
        came_to.append(await end(victim))
        pair[number % _WORKERS] = await world.attached(world.start_worker())
        await publishing
        await world.caught_up(_MOST_BEHIND)  # or the last kill would come long before the last event
    await world.generator.publish_all(stream, per_s=1000)
    return came_to


async def _kill(victim: WorkerProcess) -> float:
    working = await asyncio.to_thread(in_flight, victim)
    victim.kill()
    return working


async def _stop(victim: WorkerProcess) -> float:
    began = time.monotonic()
    code = await asyncio.to_thread(victim.stop)
    assert code == 0, f"a worker that was stopped ended with {code}:\n{victim.log[-2000:]}"
    return time.monotonic() - began


@asynccontextmanager
async def _supervised(world: World, setting: str, value: str) -> AsyncIterator[None]:
    """Workers that die are replaced at once."""

    async def supervise() -> None:
        running: list[WorkerProcess] = []
        while True:
            running = [worker for worker in running if worker.alive]
            while len(running) < _WORKERS:
                running.append(world.start_worker(PointsWorker, **{setting: value}))
            await asyncio.sleep(_RESTART_LOOK_S)

    supervising = asyncio.create_task(supervise())
    try:
        yield
    finally:
        supervising.cancel()
