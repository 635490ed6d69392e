"""Every point of a message's way, and what may happen just there."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from itertools import dropwhile, takewhile, zip_longest
from typing import Final

from sandbox.oss import Fault, Kind
from schemas import topology
from schemas.reasons import Reason
from tests.e2e.image_host import UNAVAILABLE
from tests.e2e.product_process import WorkerProcess
from tests.faults.campaign import campaign
from tests.faults.gate import Gate
from tests.faults.ledger import Verdict
from tests.faults.mixture import Planned, picture
from tests.faults.points import GATE_PORT
from tests.faults.services import Services
from tests.faults.world import PointsWorker, World

_HANG_S: Final = 3
_OSS_TIMEOUT_S: Final = "2"
_LAST: Final = "after ack"
_AFTERWARDS: Final = ("before erase", "after erase")  # of a suspect's note


@dataclass
class Crossings:
    """One worker after the other goes the way of its message, and is met by something at one point of it."""

    world: World
    gate: Gate
    worker: WorkerProcess
    crossed: int = 0
    broken: list[str] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    async def points_of(self, route: "Route") -> list[str]:
        """The points of the message's first delivery, in order."""
        planned = await route(self.world)
        self.gate.passed.clear()
        await self.world.generator.publish(planned)
        await self.world.settled()
        passed = list(self.gate.passed)
        first = passed[: passed.index(_LAST) + 1]
        return first + list(takewhile(_AFTERWARDS.__contains__, passed[len(first) :]))

    async def cross(self, name: str, route: "Route", point: str, action: "Action") -> None:
        """The event of this route has ended as it must, whatever happened at the point."""
        planned = await route(self.world)
        self.gate.close(point)
        await self.world.generator.publish(planned)
        case = f"{name}, {point}, {action.__name__.strip('_')}"
        if await self.gate.reached():
            await action(self)
        else:
            self.broken.append(f"{case}: the point was not reached")
            self.gate.let_go()
        await self.world.settled()
        violations = (await self.world.ledger.compare()).violations
        self.broken += [f"{case}: {violation}" for violation in violations if violation not in self._known]
        self._known.update(violations)
        self.crossed += 1

    def start_worker(self) -> None:
        """Another worker is there for this event, and for the next one."""
        self.worker = self.world.start_worker(PointsWorker, **{GATE_PORT: str(self.gate.port)})


Route = Callable[[World], Awaitable[Planned]]
Action = Callable[[Crossings], Awaitable[None]]


async def _kill(at: Crossings) -> None:
    at.worker.kill()
    at.start_worker()


async def _stop(at: Crossings) -> None:
    at.worker.terminate()
    await at.world.detached(at.worker)
    at.gate.let_go()
    if code := await asyncio.to_thread(at.worker.await_end):
        at.broken.append(f"the worker ended with {code}")
    at.start_worker()


async def _cut_broker(at: Crossings) -> None:
    await at.world.to_broker.reset()
    at.gate.let_go()


async def _cut_database(at: Crossings) -> None:
    await at.world.to_database.reset()
    at.gate.let_go()


async def _hang_storage(at: Crossings) -> None:
    at.world.to_storage.freeze()
    at.gate.let_go()
    await asyncio.sleep(_HANG_S)
    at.world.to_storage.thaw()


async def _stored(world: World) -> Planned:
    return world.mixture.good("file")


async def _failed(world: World) -> Planned:
    return world.mixture.bad(Reason.NOT_AN_IMAGE)


async def _retried(world: World) -> Planned:
    number = len(world.host.requests)
    return world.mixture.named(f"retried-{number}.png", picture(-number), None, UNAVAILABLE)


async def _held(world: World) -> Planned:
    planned = world.mixture.good("http")
    assert planned.event
    data = planned.event.data
    prefix = f"users/{data.user_id}/jobs/{data.job_id}/"
    world.oss.faults.add(Fault(Kind.THROTTLE, method="PUT", key_prefix=prefix, times=1))
    return planned


async def _duplicate(world: World) -> Planned:
    planned = world.mixture.good("file")
    await world.generator.publish(planned)
    await world.settled()
    return planned


async def _suspected(world: World) -> Planned:
    return replace(world.mixture.good("file"), headers={topology.X_SUSPECT: 1})


_ROUTES: Final[dict[str, Route]] = {
    "stored": _stored,
    "failed": _failed,
    "retried": _retried,
    "held": _held,
    "duplicate": _duplicate,
    "suspected": _suspected,
}
_ACTIONS: Final = (_kill, _stop, _cut_broker, _cut_database, _hang_storage)


@campaign(actions=1)
async def points(services: Services, *, actions: int = len(_ACTIONS)) -> Verdict:
    """At every point of every route, each of so many actions: SIGKILL, SIGTERM, broker, database, storage."""
    async with World.opened(services, OSS_TIMEOUT_S=_OSS_TIMEOUT_S) as world, Gate.opened() as gate:
        at = Crossings(world, gate, worker=world.start_worker(PointsWorker, **{GATE_PORT: str(gate.port)}))
        await world.attached(at.worker)
        usual = await at.points_of(_stored)
        for name, route in _ROUTES.items():
            for point in usual if route is _stored else _own(await at.points_of(route), usual):
                for action in _ACTIONS[:actions]:
                    await at.cross(name, route, point, action)
        verdict = await world.finish()
        verdict.check("broken at a point", at.broken)
        return verdict.told("crossings", at.crossed)


def _own(points: list[str], usual: list[str]) -> list[str]:
    """The points from where the way parts from the usual one."""
    pairs = dropwhile(lambda pair: pair[0] == pair[1], zip_longest(points, usual))
    return [point for point, _ in pairs if point is not None]
