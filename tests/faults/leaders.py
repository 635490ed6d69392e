"""A cluster whose nodes are killed: the leader of the work queue, again and again, under load."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Final

import asyncpg

from schemas import topology
from tests.faults.balancer import Balancer
from tests.faults.campaign import campaign
from tests.faults.cluster_nodes import Cluster
from tests.faults.ledger import Verdict
from tests.faults.services import Services
from tests.faults.world import World

_PER_S: Final = 60
_YOUNG_S: Final = 20  # RabbitMQ 3.10 may lose what was declared on a node just before it is killed
_WINDOW_S: Final = 20
_LATE_S: Final = 120


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


@campaign(kills=1)
async def cluster(services: Services, *, kills: int = 10) -> Verdict:
    """Two workers on a cluster of three nodes; the leader is killed, and back before the next one is.

    Work must go on while it is away, and a worker that starts then, in the place of another one, must take part.
    """
    killed_at: list[datetime] = []
    with Cluster(services.directory / "cluster").opened() as nodes:
        async with (
            Balancer(nodes.addresses) as balancer,
            World.opened(services, BalancedCluster(nodes, balancer)) as world,
        ):
            workers = [await world.attached(world.start_worker()) for _ in range(2)]
            async with world.load(per_s=_PER_S):
                await asyncio.sleep(_YOUNG_S)
                for _ in range(kills):
                    await asyncio.to_thread(nodes.await_whole)
                    leader = await asyncio.to_thread(nodes.leader, world.name, topology.WORK_QUEUE)
                    killed_at.append(datetime.now(UTC))
                    await asyncio.to_thread(leader.kill)
                    workers.append(await world.attached(world.start_worker()))
                    await asyncio.to_thread(workers.pop(0).stop)
                    for worker in workers:
                        await world.attached(worker)
                    await world.resumed()
                    await asyncio.to_thread(leader.start)
            await asyncio.to_thread(nodes.await_whole)
            late_s = await _all_decided(world)
            verdict = (await world.finish()).told("seconds until the last was decided", round(late_s, 1))
            standstills = await _standstills(world.database_url, killed_at)
    return verdict.told("median standstill in s", round(median(standstills), 2)).told(
        "longest standstill in s", round(max(standstills), 2)
    )


async def _all_decided(world: World) -> float:
    """How long it took until every event had its row; the broker may take its time to find what was on a rung."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    with suppress(TimeoutError):
        async with asyncio.timeout(_LATE_S):
            while await world.ledger.decided() < world.ledger.expected:  # noqa: ASYNC110 a database tells nobody
                await asyncio.sleep(0.1)
    return loop.time() - since


async def _standstills(database_url: str, killed_at: Sequence[datetime]) -> list[float]:
    """For how many seconds no row was written at the worst, after each kill."""
    connection = await asyncpg.connect(database_url)
    try:
        written = [row[0] for row in await connection.fetch('SELECT "createdAt" FROM job_outputs ORDER BY 1')]
    finally:
        await connection.close()
    gaps = [(later, (later - earlier).total_seconds()) for earlier, later in pairwise(written)]
    return [max(gap for at, gap in gaps if 0 <= (at - killed).total_seconds() <= _WINDOW_S) for killed in killed_at]
