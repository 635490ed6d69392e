"""A store that is away, hangs, or refuses every other upload, under load."""

import asyncio
import time
from typing import Final

from tests.bench.usage import cpu_s
from tests.faults.campaign import campaign
from tests.faults.ledger import Verdict
from tests.faults.services import Services
from tests.faults.world import RETRY_DELAYS_S, World

_PER_S: Final = 25
_OSS_TIMEOUT_S: Final = "2"
_MOST_S: Final = 10
_MOST_CPU: Final = 0.05
_UNTIL_WAITING_S: Final = 5


@campaign(ladders=3)
async def oss_outage(services: Services, *, ladders: int = 10) -> Verdict:
    """The store refuses connections, then takes them and never answers, for so many times the whole ladder."""
    async with World.opened(services, OSS_TIMEOUT_S=_OSS_TIMEOUT_S) as world:
        workers = [world.start_worker(), world.start_worker()]
        for worker in workers:
            await world.attached(worker)
        half_s = ladders * sum(RETRY_DELAYS_S) / 2
        shares = []
        async with world.load(per_s=_PER_S):
            await world.resumed()
            await world.to_storage.down()
            shares += [await _cpu_share(worker.pid, half_s) for worker in workers[:1]]
            world.to_storage.freeze()
            await world.to_storage.up()
            shares += [await _cpu_share(worker.pid, half_s) for worker in workers[1:]]
            mended_at = time.monotonic()
            world.to_storage.thaw()
            resumed_s = await world.resumed(since=lambda: world.oss.first_good_answer(mended_at))
        verdict = await world.finish()
        verdict.check("counted attempts", world.counted_attempts())
        verdict.check("resumed too late", [f"after {resumed_s:.1f} s"] * (resumed_s > _MOST_S))
        verdict.check("busy while waiting", [f"{share:.1%} CPU" for share in shares if share > _MOST_CPU])
        verdict.told("wait for work in s", round(resumed_s, 1))
        return verdict.told("CPU of a waiting worker in %", round(100 * max(shares), 1))


@campaign(events=150)
async def oss_brownout(services: Services, *, events: int = 1500) -> Verdict:
    """Half of the uploads are answered 503, from the first event to the last one."""
    async with World.opened(services, OSS_TIMEOUT_S=_OSS_TIMEOUT_S) as world:
        for worker in (world.start_worker(), world.start_worker()):
            await world.attached(worker)
        world.oss.refused_share = 0.5
        await world.generator.publish_all(world.mixture.events(events), per_s=2 * _PER_S)
        verdict = await world.finish()
        verdict.check("counted attempts", world.counted_attempts())
        return verdict.told("uploads refused", world.oss.refused)


async def _cpu_share(pid: int, seconds: float) -> float:
    """The share of a processor that the process uses, once it has had time to notice that it must wait."""
    settling_s = min(_UNTIL_WAITING_S, seconds / 2)
    await asyncio.sleep(settling_s)
    used_s = cpu_s(pid)
    await asyncio.sleep(seconds - settling_s)
    return (cpu_s(pid) - used_s) / (seconds - settling_s)
