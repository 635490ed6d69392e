"""The scheduled message, while those who take it are killed."""

import asyncio
import time
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Final

from tests.faults.campaign import campaign
from tests.faults.ledger import Verdict
from tests.faults.services import Services
from tests.faults.world import World

_INTERVAL: Final = timedelta(seconds=1)
_LEAST: Final = 0.9 * _INTERVAL
_MOST: Final = 2 * _INTERVAL
_UPLOADS_PER_S: Final = 5
_SHARE_OF_LEAST: Final = 0.75  # of one tick a second: a tick is armed when the one before has been worked off


@campaign(seconds=10, workers=3, kills=3)
async def ticks(services: Services, *, seconds: int = 60, workers: int = 5, kills: int = 15) -> Verdict:
    """Workers are killed at random times and replaced; the ticks come as if nothing were the matter."""
    random = Random(1)
    async with World.opened(services, CLEANUP_INTERVAL_S=f"{_INTERVAL.seconds}") as world:
        running = [world.start_worker() for _ in range(workers)]
        for worker in running:
            await world.attached(worker)
        async with world.load(per_s=_UPLOADS_PER_S):
            began = time.time()
            for moment in sorted(random.uniform(0, seconds) for _ in range(kills)):
                await asyncio.sleep(max(0, began + moment - time.time()))
                number = random.randrange(workers)
                running[number].kill()
                running[number] = world.start_worker()
            await asyncio.sleep(max(0, began + seconds - time.time()))
            ended = time.time()
        verdict = await world.finish()
        return _compare(verdict, _begun(world, began, ended), seconds)


def _begun(world: World, began: float, ended: float) -> list[tuple[datetime, str]]:
    """When each run began, with the id of its tick, in that order."""
    lines = [line for worker in world.workers for line in worker.lines("cleanup begins")]
    runs = sorted((datetime.fromisoformat(line["timestamp"]), str(line["event_id"])) for line in lines)
    return [(at, name) for at, name in runs if began <= at.timestamp() <= ended]


def _compare(verdict: Verdict, runs: list[tuple[datetime, str]], seconds: int) -> Verdict:
    first: dict[str, datetime] = {}
    for at, name in runs:
        first.setdefault(name, at)
    gaps = [later - earlier for earlier, later in pairwise(first.values())]
    verdict.check("too close", [f"{gap}" for gap in gaps if gap < _LEAST])
    verdict.check("too far apart", [f"{gap}" for gap in gaps if gap > _MOST])
    verdict.check("too few", ["in all that time"] * (len(first) < _SHARE_OF_LEAST * seconds))
    verdict.check("too many", ["in all that time"] * (len(first) > seconds + 1))
    verdict.told("ticks", len(first)).told("redeliveries", len(runs) - len(first))
    verdict.told("smallest gap in s", min(gaps).total_seconds())
    return verdict.told("largest gap in s", max(gaps).total_seconds())
