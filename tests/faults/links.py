"""Every fault of a network on every link of a worker, in turn, under load."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import product
from random import Random
from typing import Any, Final, TypeAlias

from sandbox.process import eventually
from tests.faults.campaign import campaign
from tests.faults.ledger import Verdict
from tests.faults.proxy import Proxy, Way
from tests.faults.restarts import under_load
from tests.faults.services import Services
from tests.faults.world import RETRY_DELAYS_S, World

_TIMEOUT_S: Final = "2"  # of store and source
_SILENCE_S: Final = 2.5  # longer than that, and shorter than the ladder, which is all that a source has
_BAD_S: Final = 1.0
_PATIENCE_S: Final = 5.0
_PIECES: Final = 3
_MOST_PASSED: Final = 5000

Fault: TypeAlias = Callable[[Proxy, bytes], Awaitable[None]]
_random: Final = Random(1)


async def _slow(link: Proxy, _: bytes) -> None:
    await _while(link, latency_s=0.05, jitter_s=0.05)


async def _narrow(link: Proxy, _: bytes) -> None:
    await _while(link, bytes_per_s=200_000)


async def _sliced(link: Proxy, _: bytes) -> None:
    await _while(link, slice_bytes=7)


async def _closed_late(link: Proxy, _: bytes) -> None:
    link.end()
    await _while(link, close_delay_s=_BAD_S)


async def _reset(link: Proxy, _: bytes) -> None:
    for _again in range(_PIECES):
        await link.reset()
        await asyncio.sleep(_BAD_S / _PIECES)


async def _silent_from_the_start(link: Proxy, _: bytes) -> None:
    """Connections are accepted, and nobody ever answers."""
    link.freeze()
    await link.reset()
    await asyncio.sleep(_SILENCE_S)
    link.thaw()


async def _cut_anywhere(link: Proxy, _: bytes) -> None:
    for way in (link.to_server, link.to_client):
        way.cut_after = _random.randint(1, _MOST_PASSED)
        await _until(lambda way=way: way.cut_after is None)  # type: ignore[misc]


async def _answer_lost(link: Proxy, request: bytes) -> None:
    """What was asked for has happened, and nobody is told."""
    lost = link.to_server.lose_answer_to(request)
    await _until(lost.is_set)
    assert lost.is_set(), f"nobody asked for {request!r}"


async def _refusing(link: Proxy, _: bytes) -> None:
    await link.down()
    await asyncio.sleep(_BAD_S)
    await link.up()


_FAULTS: Final[tuple[Fault, ...]] = (
    _slow,
    _narrow,
    _sliced,
    _closed_late,
    _reset,
    _silent_from_the_start,
    _cut_anywhere,
    _answer_lost,
    _refusing,
)


@campaign(rounds=1)
async def links(services: Services, *, rounds: int = 4) -> Verdict:
    """The links to broker, database and store, each with each fault, so many times; none costs an attempt."""
    async with World.opened(services, OSS_TIMEOUT_S=_TIMEOUT_S) as world:
        asked = (
            (world.to_broker, b"image.upload.completed"),
            (world.to_database, b"COMMIT"),
            (world.to_storage, b"PUT /"),
        )
        turns = list(product(_FAULTS, asked))

        async def suffer(number: int) -> None:
            fault, (link, request) = turns[number % len(turns)]
            await fault(link, request)

        times = rounds * len(turns)
        verdict = await under_load(world, times, suffer, AMQP_URL=f"{world.to_broker.url()}?heartbeat=1")
        return verdict.told("faults", times)


@campaign(rounds=1)
async def sources(services: Services, *, rounds: int = 4) -> Verdict:
    """The link to the sources, with each fault, so many times; each is over before the ladder is."""
    async with World.opened(services, SOURCE_TIMEOUT_S=_TIMEOUT_S) as world:
        world.mixture.poison = 0  # what must fail might do so for another reason

        async def suffer(number: int) -> None:
            await _FAULTS[number % len(_FAULTS)](world.to_web, b"GET /")
            await asyncio.sleep(sum(RETRY_DELAYS_S))  # or one event might meet three faults in a row

        times = rounds * len(_FAULTS)
        verdict = await under_load(world, times, suffer, costs_attempts=True)
        return verdict.told("faults", times)


async def _while(link: Proxy, **wrong: Any) -> None:
    """Both ways were like this for a while."""
    sound = {name: getattr(Way(), name) for name in wrong}
    for state in (wrong, sound):
        for way in (link.to_server, link.to_client):
            vars(way).update(state)
        await asyncio.sleep(_BAD_S if state is wrong else 0)


async def _until(so: Callable[[], bool]) -> None:
    """It is so, or has not become so within some seconds."""
    await asyncio.to_thread(eventually, so, _PATIENCE_S)
