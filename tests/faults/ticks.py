"""The scheduled message, while those who take it are killed."""

import asyncio
import time
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Final

from tests.e2e.product_process import WorkerProcess
from tests.faults.campaign import campaign
from tests.faults.ledger import Verdict
from tests.faults.services import Services
from tests.faults.world import World

_INTERVAL: Final = timedelta(seconds=1)
_LEAST: Final = 0.9 * _INTERVAL
_MOST: Final = 2 * _INTERVAL
_UPLOADS_PER_S: Final = 5
_SLOW_STORE_S: Final = 0.1  # so that a run lasts long enough to be killed in
_BEGINS: Final = "cleanup begins"
_LOOK_EVERY_S: Final = 0.01
_PATIENCE_S: Final = 120
_TICKS_AFTERWARDS: Final = 10
_SHARE_OF_LEAST: Final = 0.75  # of one tick a second: a tick is armed when the one before has been worked off


@campaign(seconds=10, workers=3, kills=3, restarts=0)
async def ticks(
    services: Services, *, seconds: int = 60, workers: int = 5, kills: int = 15, restarts: int = 1
) -> Verdict:
    """Workers are killed at random times, and in the middle of runs; the ticks come as if nothing were the matter.

    Afterwards the broker is restarted, and they come again.
    """
    random = Random(1)
    async with World.opened(services, CLEANUP_INTERVAL_S=f"{_INTERVAL.seconds}") as world:
        world.to_storage.to_client.latency_s = _SLOW_STORE_S
        running = [world.start_worker() for _ in range(workers)]
        for worker in running:
            await world.attached(worker)
        async with world.load(per_s=_UPLOADS_PER_S):
            began = time.time()
            for turn, moment in enumerate(sorted(random.uniform(0, seconds - 3) for _ in range(kills))):
                await asyncio.sleep(max(0, began + moment - time.time()))
                victim = await _next_to_run(running) if turn % 2 else random.choice(running)
                victim.kill()
                running[running.index(victim)] = world.start_worker()
            await asyncio.sleep(max(0, began + seconds - time.time()))
            ended = time.time()
            absences = [await _restart(services, running) for _ in range(restarts)]
        verdict = await world.finish()
        _compare(verdict, _begun(world, began, ended), seconds)
        # Of all, or a tick that comes again after the restart would be taken for a new one.
        first = [at.timestamp() for at in _first(_begun(world, began, time.time())).values()]
        return _compare_restarts(verdict, [at for at in first if at > ended], absences)


async def _restart(services: Services, workers: list[WorkerProcess]) -> tuple[float, float]:
    """When the broker went, and when it was back; some ticks have come since then."""
    went = time.time()
    await asyncio.to_thread(services.rabbitmq.stop)
    await asyncio.to_thread(services.rabbitmq.start)
    back = time.time()
    async with asyncio.timeout(_PATIENCE_S):
        for _ in range(_TICKS_AFTERWARDS):
            await _next_to_run(workers)
    return went, back


async def _next_to_run(workers: list[WorkerProcess]) -> WorkerProcess:
    """The worker that begins the next run."""
    before = {worker: len(worker.lines(_BEGINS)) for worker in workers}
    while True:
        for worker in workers:
            if len(worker.lines(_BEGINS)) > before[worker]:
                return worker
        await asyncio.sleep(_LOOK_EVERY_S)


def _begun(world: World, began: float, ended: float) -> list[tuple[datetime, str]]:
    """When each run began, with the id of its tick, in that order."""
    lines = [line for worker in world.workers for line in worker.lines(_BEGINS)]
    runs = sorted((datetime.fromisoformat(line["timestamp"]), str(line["event_id"])) for line in lines)
    return [(at, name) for at, name in runs if began <= at.timestamp() <= ended]


def _first(runs: list[tuple[datetime, str]]) -> dict[str, datetime]:
    first: dict[str, datetime] = {}
    for at, name in runs:
        first.setdefault(name, at)
    return first


def _compare(verdict: Verdict, runs: list[tuple[datetime, str]], seconds: int) -> Verdict:
    first = _first(runs)
    gaps = [later - earlier for earlier, later in pairwise(first.values())]
    verdict.check("too close", [f"{gap}" for gap in gaps if gap < _LEAST])
    verdict.check("too far apart", [f"{gap}" for gap in gaps if gap > _MOST])
    verdict.check("too few", ["in all that time"] * (len(first) < _SHARE_OF_LEAST * seconds))
    verdict.check("too many", ["in all that time"] * (len(first) > seconds + 1))
    verdict.told("ticks", len(first)).told("redeliveries", len(runs) - len(first))
    verdict.told("smallest gap in s", min(gaps).total_seconds())
    return verdict.told("largest gap in s", max(gaps).total_seconds())


def _compare_restarts(verdict: Verdict, times: list[float], absences: list[tuple[float, float]]) -> Verdict:
    gaps = [
        later - earlier
        for earlier, later in pairwise(times)
        if not any(earlier < back and later > went for went, back in absences)
    ]
    verdict.check("too close after a restart", [f"{gap} s" for gap in gaps if gap < _LEAST.total_seconds()])
    verdict.check("too far apart after a restart", [f"{gap} s" for gap in gaps if gap > _MOST.total_seconds()])
    for went, back in absences:
        verdict.told("broker away in s", back - went)
        verdict.told("first tick after its return in s", min(at for at in times if at > back) - back)
    return verdict
