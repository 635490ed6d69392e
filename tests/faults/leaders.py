"""A cluster whose nodes are killed: the leader of the work queue, again and again, under load."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Final

import asyncpg

from schemas import topology
from tests.faults.balancer import Balancer
from tests.faults.cluster_nodes import Cluster
from tests.faults.ledger import Verdict
from tests.faults.mixture import Planned
from tests.faults.services import Services
from tests.faults.world import World

_PER_S: Final = 60
_MOST_EVENTS: Final = 1_000_000
_ROWS_AFTERWARDS: Final = _PER_S  # so many, and both workers would have noticed what they have lost
_WINDOW_S: Final = 20


class BalancedCluster:
    """What a client of a cluster sees of it: one address."""

    def __init__(self, cluster: Cluster, balancer: Balancer) -> None:
        self._cluster = cluster
        self._port = balancer.address[1]

    @property
    def url(self) -> str:
        """The default virtual host."""
        return self._url("")

    def add_vhost(self, name: str) -> str:
        """The virtual host exists; its URL."""
        self._cluster.nodes[0].add_vhost(name)
        return self._url(name)

    def delete_vhost(self, name: str) -> None:
        """Left as it is: it goes with the cluster."""

    def _url(self, path: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}/{path}"


async def leader_kills(services: Services, *, kills: int = 10) -> Verdict:
    """Two workers on a cluster of three nodes; the leader is killed, and back before the next one is.

    Work must go on while it is away, with both workers.
    """
    with Cluster(services.directory / "cluster").opened() as cluster:
        async with (
            Balancer(cluster.addresses) as balancer,
            World.opened(services, BalancedCluster(cluster, balancer)) as world,
        ):
            workers = [world.start_worker() for _ in range(2)]
            for worker in workers:
                await world.attached(worker)
            done = asyncio.Event()
            events = _until(done.is_set, world.mixture.events(_MOST_EVENTS))
            publishing = asyncio.create_task(world.generator.publish_all(events, per_s=_PER_S))
            killed_at = []
            for _ in range(kills):
                await asyncio.to_thread(cluster.await_whole)
                leader = await asyncio.to_thread(cluster.leader, world.name, topology.WORK_QUEUE)
                killed_at.append(datetime.now(UTC))
                await asyncio.to_thread(leader.kill)
                await _more_rows(world)
                for worker in workers:
                    await world.attached(worker)
                await asyncio.to_thread(leader.start)
            done.set()
            await publishing
            await asyncio.to_thread(cluster.await_whole)
            verdict = await world.finish()
            return Verdict(verdict.figures | await _standstills(world.database_url, killed_at), verdict.violations)


def _until(over: Callable[[], bool], events: Iterator[Planned]) -> Iterator[Planned]:
    while not over():
        yield next(events)


async def _more_rows(world: World) -> None:
    due = await world.ledger.decided() + _ROWS_AFTERWARDS
    async with asyncio.timeout(_WINDOW_S):
        while await world.ledger.decided() < due:  # noqa: ASYNC110 a database tells nobody
            await asyncio.sleep(0.1)


async def _standstills(database_url: str, killed_at: Sequence[datetime]) -> dict[str, float]:
    """How long no row was written at the worst, after each kill."""
    connection = await asyncpg.connect(database_url)
    try:
        written = [row[0] for row in await connection.fetch('SELECT "createdAt" FROM job_outputs ORDER BY 1')]
    finally:
        await connection.close()
    longest = [
        max(
            (later - earlier).total_seconds()
            for earlier, later in pairwise(written)
            if 0 <= (later - killed).total_seconds() <= _WINDOW_S
        )
        for killed in killed_at
    ]
    return {"kills": len(longest), "median standstill s": median(longest), "longest standstill s": max(longest)}
