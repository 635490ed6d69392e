"""Files in TEMP_DIR that become old while their events wait, beside files that nobody will ever ask for."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

from consumer.core.source_file import source_file
from producer.publisher import Publisher, PublishError
from schemas.events import CleanupRequested, CleanupRequestedData
from schemas.reasons import Reason
from tests.faults.campaign import campaign
from tests.faults.ledger import Verdict
from tests.faults.services import Services
from tests.faults.world import World

_MAX_AGE_S: Final = 3
_STORAGE_TIMEOUT_S: Final = 8  # a try may last longer than a file may be old
_LONGEST_TRY_S: Final = 1 + _STORAGE_TIMEOUT_S + 60  # the least that HANDLER_TIMEOUT_S may be
_OUTAGE_S: Final = 4 * _MAX_AGE_S
_IN_WORK: Final = 50  # fewer than two workers take at once, so that none of them waits in a queue
_ABANDONED: Final = 20
_FAILING: Final = 5
_LOOKS: Final = 3
_PER_S: Final = 200
_PATIENCE_S: Final = 2.5 * _LONGEST_TRY_S
_LOOK_EVERY_S: Final = 0.2
_ASK_EVERY_S: Final = 0.5


@campaign(events=150)
async def temp_outage(services: Services, *, events: int = 600) -> Verdict:
    """The store hangs, is away, and then the database, each for longer than a file may be old; then all is quiet."""
    settings = {
        "CLEANUP_INTERVAL_S": "0",  # other tasks would keep this one waiting for the store
        "TEMP_MAX_AGE_S": str(_MAX_AGE_S),
        "SOURCE_TIMEOUT_S": "1",
        "OSS_TIMEOUT_S": str(_STORAGE_TIMEOUT_S),
        "HANDLER_TIMEOUT_S": str(_LONGEST_TRY_S),
    }
    async with World.opened(services, None, **settings) as world, _cleaned(world):
        abandoned = [_abandon(world.temp_dir, number) for number in range(_ABANDONED)]
        for worker in (world.start_worker(), world.start_worker()):
            await world.attached(worker)
        failing = await _publish_bad(world)
        await _sees_quiet(world)
        world.to_storage.freeze()
        await _publish(world, _IN_WORK)
        await asyncio.sleep(_OUTAGE_S)
        await world.to_storage.down()
        world.to_storage.thaw()
        await _publish(world, events - _IN_WORK)
        await asyncio.sleep(_OUTAGE_S)
        await world.to_database.down()
        await world.to_storage.up()
        await asyncio.sleep(_OUTAGE_S)
        left = [path for path in abandoned if path.exists()]
        await world.to_database.up()
        await world.settled()
        quiet_s = await _gone(left)
        verdict = await world.finish()
        runs = [line for worker in world.workers for line in worker.lines("cleanup succeeded")]
        verdict.check("files of failures removed", [path.name for path in failing if not path.exists()])
        verdict.check("abandoned files left", [path.name for path in abandoned if path.exists()])
        verdict.told("abandoned files until it was quiet", len(left)).told("cleanups", len(runs))
        verdict.told("files removed by cleanups", sum(line["tasks"]["temp"]["count"] for line in runs))
        return verdict.told("quiet until all were removed in s", round(quiet_s, 1))


@asynccontextmanager
async def _cleaned(world: World) -> AsyncIterator[None]:
    """TEMP_DIR is cleaned again and again; whoever asks goes around the network that is bad."""

    async def ask() -> None:
        async with Publisher(world.amqp_url) as publisher:
            while True:
                request = CleanupRequested(
                    id=str(uuid4()),
                    source="/operators/faults",
                    time=datetime.now(UTC),
                    data=CleanupRequestedData(tasks=("temp",)),
                )
                with suppress(PublishError):  # enough of them wait
                    await publisher.publish_event(request)
                await asyncio.sleep(_ASK_EVERY_S)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.wait((asking,))


def _abandon(directory: Path, number: int) -> Path:
    path = directory / f"abandoned-{number}.png"
    path.write_bytes(b"of no event")
    return path


async def _sees_quiet(world: World) -> None:
    """Cleanups have seen that nothing waits, and have waited for nothing but the time."""
    async with asyncio.timeout(_PATIENCE_S):
        while sum(len(worker.lines("cleanup succeeded")) for worker in world.workers) < _LOOKS:  # noqa: ASYNC110 logs too
            await asyncio.sleep(_LOOK_EVERY_S)


async def _publish(world: World, events: int) -> None:
    await world.generator.publish_all((world.mixture.good("file") for _ in range(events)), per_s=_PER_S)


async def _publish_bad(world: World) -> list[Path]:
    """The files of events that fail, which whoever replays them needs."""
    failing = [world.mixture.bad(Reason.NOT_AN_IMAGE) for _ in range(_FAILING)]
    await world.generator.publish_all(failing, per_s=_PER_S)
    await world.settled()
    paths = [source_file(planned.event.data.image_url) for planned in failing if planned.event]
    return [Path(path) for path in paths if path]


async def _gone(paths: list[Path]) -> float:
    """Seconds until all of them were gone, or patience with them was."""
    began = time.monotonic()
    while any(path.exists() for path in paths) and time.monotonic() - began < _PATIENCE_S:  # noqa: ASYNC110 files tell nobody
        await asyncio.sleep(_LOOK_EVERY_S)
    return time.monotonic() - began
