"""All that a fault run needs: services, workers behind a fault proxy on every link, a generator, a ledger."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self

from consumer.adapters import migrations, postgres, rabbit
from sandbox.process import eventually
from tests.e2e.image_host import ImageHost
from tests.e2e.product_process import WorkerProcess
from tests.e2e.watched_oss import ACCOUNT
from tests.faults.generator import Generator
from tests.faults.ledger import Ledger, Verdict
from tests.faults.mixture import Mixture, Planned
from tests.faults.proxy import Proxy
from tests.faults.services import Services
from tests.faults.storage import Storage
from tests.named_servers import Broker

RETRY_DELAYS_S: Final = (1, 2)
_PATIENCE_S: Final = 60
_LOOK_EVERY_S: Final = 0.05
_QUIET_LOOKS: Final = 3
_ENDLESS: Final = 10**9
_SIGNS_OF_DEFECTS: Final = ("Traceback", "unexpected error")
_ATTACHED: Final = "image_uploads_consumer_attached"
_IN_FLIGHT: Final = re.compile(r"^image_uploads_in_flight (\S+)$", re.MULTILINE)


class PointsWorker(WorkerProcess):
    """A worker that stops at points, or dies of an image: see `tests.faults.points`."""

    command = ("tests.faults.points", "worker")


class World:
    """Made by `opened`; whatever runs in it is gone afterwards."""

    services: Services
    amqp_url: str
    database_url: str
    oss: Storage
    host: ImageHost
    to_broker: Proxy
    to_database: Proxy
    to_storage: Proxy
    to_web: Proxy
    mixture: Mixture
    ledger: Ledger
    generator: Generator

    def __init__(self, services: Services, directory: Path) -> None:
        self.services = services
        self.name = directory.name
        self.temp_dir = directory / "temp"
        self.workers: list[WorkerProcess] = []
        self._directory = directory
        self._settings: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def opened(cls, services: Services, broker: Broker | None = None, **settings: str) -> AsyncIterator[Self]:
        """Everything answers and is declared; the settings are the workers', over the usual ones.

        Without a broker of its own, the world has a virtual host of the services' one.
        """
        broker = broker or services.rabbitmq
        name = services.fresh_name()
        world = cls(services, services.directory / name)
        world.temp_dir.mkdir(parents=True)
        async with AsyncExitStack() as stack:
            world.amqp_url = broker.add_vhost(name)
            stack.callback(broker.delete_vhost, name)
            world.database_url = services.postgres.add_database(name)
            await _prepare(world.amqp_url, world.database_url)
            world.oss = await stack.enter_async_context(Storage(world._directory / "oss"))
            world.host = await stack.enter_async_context(ImageHost())
            world.to_broker = await stack.enter_async_context(Proxy(world.amqp_url))
            world.to_database = await stack.enter_async_context(Proxy(world.database_url))
            world.to_storage = await stack.enter_async_context(Proxy(world.oss.url))
            world.to_web = await stack.enter_async_context(Proxy(world.host.url("")))
            world._settings = world._usual() | settings
            world.mixture = Mixture(world.host, world.to_web.url, world.temp_dir)
            world.ledger = Ledger(world.amqp_url, world.database_url, world.oss, world.temp_dir, RETRY_DELAYS_S)
            stack.push_async_callback(world.ledger.close)
            await world.ledger.open()
            world.generator = Generator(world.amqp_url, world.ledger.confirmed)
            stack.push_async_callback(world.generator.close)
            stack.callback(world._kill_workers)
            yield world

    def start_worker(self, kind: type[WorkerProcess] = WorkerProcess, **more: str) -> WorkerProcess:
        """A worker that is starting, behind a proxy on every link."""
        directory = self._directory / f"worker-{len(self.workers) + 1}"
        self.workers.append(worker := kind({**self._settings, **more}, directory))
        return worker

    async def attached(self, worker: WorkerProcess) -> WorkerProcess:
        """The worker, to which deliveries come from now on."""
        return await _become(worker, lambda: f"{_ATTACHED} 1.0" in worker.get("/metrics")[1], "takes no deliveries")

    async def detached(self, worker: WorkerProcess) -> WorkerProcess:
        """The worker, to which no deliveries come any more."""
        return await _become(worker, lambda: f"{_ATTACHED} 0.0" in worker.get("/metrics")[1], "takes more deliveries")

    async def busy(self, worker: WorkerProcess) -> WorkerProcess:
        """The worker, which has deliveries in work."""
        return await _become(worker, lambda: in_flight(worker) > 0, "has nothing to do")

    @asynccontextmanager
    async def load(self, *, per_s: float) -> AsyncIterator[None]:
        """Events are published all the time."""
        stop = asyncio.Event()
        stream = _until(stop, self.mixture.events(_ENDLESS))
        publishing = asyncio.create_task(self.generator.publish_all(stream, per_s=per_s))
        try:
            yield
        finally:
            stop.set()
            await publishing

    async def resumed(self, since: Callable[[], float | None] = lambda: None) -> float:
        """Another event is stored; the seconds from `since` (now, while there is no such time) until it was.

        Raises:
            AssertionError: none is.
        """
        began, before = time.monotonic(), await self._stored()
        while (now := await self._stored()) is None or now == before:
            before = now if before is None else before
            if time.monotonic() - began > _PATIENCE_S:
                raise AssertionError(f"nothing was stored within {_PATIENCE_S} s")
            await asyncio.sleep(_LOOK_EVERY_S)
        return time.monotonic() - (since() or began)

    async def caught_up(self, behind: int) -> None:
        """No more than so many events have no row yet."""
        while self.ledger.expected - await self.ledger.decided() > behind:  # noqa: ASYNC110 rows tell nobody
            await asyncio.sleep(_LOOK_EVERY_S)

    async def settled(self) -> None:
        """Nothing waits or is in work any more, and every event has its row; or nothing has changed for a minute."""
        changed_at, before, quiet = time.monotonic(), None, 0
        while quiet < _QUIET_LOOKS and time.monotonic() - changed_at < _PATIENCE_S:
            waiting, decided, working = now = await self._look()
            quiet = quiet + 1 if waiting == working == 0 and decided >= self.ledger.expected else 0
            if now != before:
                changed_at, before = time.monotonic(), now
            await asyncio.sleep(_LOOK_EVERY_S)

    async def finish(self) -> Verdict:
        """What came of it all, once everything has settled and every worker has stopped as it should."""
        await self.settled()
        alive = [worker for worker in self.workers if worker.alive]
        for worker in alive:
            worker.terminate()
        codes = [await asyncio.to_thread(worker.await_end) for worker in alive]
        verdict = await self.ledger.compare()
        wrong_ends = [f"a worker ended with {code}" for code in codes if code]
        return Verdict(verdict.figures, verdict.violations + wrong_ends + list(self._defects()))

    def counted_attempts(self) -> Iterator[str]:
        """A sentence for each stored event to which an attempt was counted before, though its source was well."""
        for worker in self.workers:
            for line in worker.lines("stored"):
                if line["attempt"] > 1:
                    yield f"{line['event_id']} was stored at attempt {line['attempt']}"

    async def _stored(self) -> int | None:
        try:
            return await self.ledger.stored()
        except postgres.LOST:
            return None

    async def _look(self) -> tuple[int, int, float]:
        try:
            waiting, decided = await self.ledger.waiting(), await self.ledger.decided()
        except (*rabbit.LOST, *postgres.LOST):
            return -1, 0, 0
        working = [await asyncio.to_thread(in_flight, worker) for worker in self.workers if worker.alive]
        return waiting, decided, sum(working)

    def _usual(self) -> dict[str, str]:
        return {
            "AMQP_URL": self.to_broker.url(),
            "DATABASE_URL": self.to_database.url(),
            "OSS_BUCKET": self.oss.bucket,
            "OSS_REGION": "cn-hangzhou",
            "OSS_ACCESS_KEY": ACCOUNT.access_key_id,
            "OSS_SECRET": ACCOUNT.access_key_secret,
            "OSS_ENDPOINT": self.to_storage.url(),
            "OSS_BASE_URL": self.oss.public_url,
            "TEMP_DIR": str(self.temp_dir),
            "SOURCE_ALLOWED_NETWORKS": "127.0.0.0/8",
            "RETRY_DELAYS_S": ",".join(map(str, RETRY_DELAYS_S)),
        }

    def _defects(self) -> Iterator[str]:
        for worker in self.workers:
            for sign in _SIGNS_OF_DEFECTS:
                if sign in worker.log:
                    at = worker.log.index(sign)
                    yield f"a worker's log has a defect: …{worker.log[max(0, at - 300) : at + 1500]}"

    def _kill_workers(self) -> None:
        for worker in self.workers:
            worker.kill()


def in_flight(worker: WorkerProcess) -> float:
    """Deliveries that the worker has in work; 0 if it does not answer."""
    found = _IN_FLIGHT.search(worker.get("/metrics")[1])
    return float(found[1]) if found else 0


def _until(stop: asyncio.Event, events: Iterator[Planned]) -> Iterator[Planned]:
    for planned in events:
        yield planned
        if stop.is_set():
            return  # before another one is made, whose file nobody would know of


async def _become(worker: WorkerProcess, so: Callable[[], bool], otherwise: str) -> WorkerProcess:
    """The worker, of which it is so now.

    Raises:
        AssertionError: it does not become so.
    """
    if not await asyncio.to_thread(eventually, so, _PATIENCE_S, _LOOK_EVERY_S):
        raise AssertionError(f"the worker {otherwise}; its log ends:\n{worker.log[-2000:]}")
    return worker


async def _prepare(amqp_url: str, database_url: str) -> None:
    await rabbit.close(await rabbit.connect_and_declare(amqp_url, "faults", RETRY_DELAYS_S))
    pool = await postgres.open_pool(database_url)
    await migrations.migrate(pool)
    await postgres.close_pool(pool)
