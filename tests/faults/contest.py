"""The same work under the same faults for the product and its peers: who loses what."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, fields
from itertools import count, cycle
from pathlib import Path
from typing import Final
from uuid import NAMESPACE_URL, uuid5

import aio_pika
from aio_pika.abc import AbstractChannel
from rich.console import Console
from rich.table import Table

from sandbox.lifeline import tie
from sandbox.postgres import ask
from sandbox.process import Process
from schemas import topology
from schemas.events import ImageGenerated
from schemas.reasons import Reason
from tests.e2e.image_host import ImageHost
from tests.e2e.watched_oss import ACCOUNT
from tests.faults.campaign import campaign
from tests.faults.generator import Generator
from tests.faults.ledger import Verdict
from tests.faults.mixture import Mixture, Planned
from tests.faults.services import Services
from tests.faults.storage import Storage
from tests.faults.tally import COMPLETIONS, Places, Tally, tally
from tests.faults.world import RETRY_DELAYS_S

_ROOT: Final = Path(__file__).parents[2]
PEERS_PYTHON: Final = _ROOT / ".sandbox" / "peers" / "bin" / "python"
_PEERS: Final = "tests.faults.peers"
_PER_S: Final = 40
_WORK_S: Final = 1.0  # between two kills
_DATABASE_RESTARTS: Final = (0.25, 0.65)  # parts of the time
_BROWNOUT: Final = (0.40, 0.52)
_REFUSED_SHARE: Final = 0.5
_START_TIMEOUT_S: Final = 60
_STOP_TIMEOUT_S: Final = 30
_SETTLE_TIMEOUT_S: Final = 180
_LOOK_EVERY_S: Final = 3  # what is reported of quorum queues lags by seconds
_QUIET_LOOKS: Final = 3
_TABLE: Final = """
    CREATE TABLE job_outputs (
        id uuid PRIMARY KEY, "jobId" text, "userId" text, "eventSource" text, "eventId" text, "ossKey" text,
        "contentType" text, "sizeBytes" bigint, width integer, height integer, "createdAt" timestamptz DEFAULT now())"""
_ONCE: Final = 'ALTER TABLE job_outputs ADD UNIQUE ("eventSource", "eventId")'


@dataclass(frozen=True, slots=True)
class Contestant:
    """A worker's command, what it asks of the database, and where its messages are."""

    name: str
    command: Sequence[str]
    queues: Sequence[str]
    tables: Sequence[str] = ()
    env: Mapping[str, str] | None = None
    dead_queue: str | None = None
    speaks_celery: bool = False


_FASTSTREAM: Final = (str(PEERS_PYTHON), "-m", "faststream", "run", f"{_PEERS}.faststream_worker:app")
_CELERY: Final = (str(PEERS_PYTHON), "-m", "celery", "-A", f"{_PEERS}.celery_worker", "worker", "--loglevel=INFO")
_DEFAULT: Final = {"PEER": "default"}
_CAREFUL: Final = {"PEER": "careful"}

CONTESTANTS: Final = (
    Contestant(
        "image-uploads",
        (sys.executable, "-m", "consumer", "worker"),
        (topology.WORK_QUEUE, *map(topology.rung_queue, RETRY_DELAYS_S)),
        dead_queue=topology.DEAD_QUEUE,
    ),
    Contestant("FastStream, default", _FASTSTREAM, ("peer",), (_TABLE,), _DEFAULT),
    Contestant("FastStream, careful", _FASTSTREAM, ("peer",), (_TABLE, _ONCE), _CAREFUL, "peer.dead"),
    Contestant("Celery, default", _CELERY, ("celery",), (_TABLE,), _DEFAULT, speaks_celery=True),
    Contestant("Celery, careful", _CELERY, ("celery",), (_TABLE, _ONCE), _CAREFUL, speaks_celery=True),
)


@campaign(on_request=True, events=200)
async def peers(services: Services, *, events: int = 2_000) -> Verdict:
    """Everybody's figures, as a table; a violation is what the product did wrong."""
    if not PEERS_PYTHON.exists():
        raise AssertionError("the peers are not installed: run `make peers`")
    results: dict[str, dict[str, int]] = {}
    for contestant in CONTESTANTS:
        async with _Run.opened(services, contestant) as run:
            results[contestant.name] = await run.result(events)
    _print(results)
    ours = results.get("image-uploads", {})
    wrong = [f"{kind.replace('_', ' ')}: {n}" for kind, n in ours.items() if n and kind not in ("stored", "kills")]
    figures: dict[str, float] = {f"{name}: {kind}": n for name, result in results.items() for kind, n in result.items()}
    return Verdict(figures, wrong)


class _ReadableMixture(Mixture):
    """Without messages that only we are expected to survive, and addresses that only we refuse."""

    def bad(self, reason: Reason | None = None) -> Planned:
        return super().bad(reason or self._random.choice((Reason.NOT_AN_IMAGE, Reason.SOURCE_GONE)))


class _EventProducer(Generator):
    """Publishes to the exchange; as `application/json`, which every framework decodes by itself."""

    async def _send(self, planned: Planned) -> None:
        message = aio_pika.Message(
            planned.body,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=planned.message_id,
        )
        exchange = await (await self._opened()).get_exchange(topology.EXCHANGE, ensure=False)
        await exchange.publish(message, ImageGenerated.TYPE, mandatory=True)

    async def _opened(self) -> AbstractChannel:
        if self._channel is None:
            self._connection = await aio_pika.connect(self._amqp_url)
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        return self._channel


class _TaskProducer(_EventProducer):
    """Sends tasks, as Celery's own client would: its message protocol, version 2."""

    async def _send(self, planned: Planned) -> None:
        task_id = str(uuid5(NAMESPACE_URL, planned.message_id))
        message = aio_pika.Message(
            json.dumps([[json.loads(planned.body)], {}, {}]).encode(),
            headers={"lang": "py", "task": "store", "id": task_id, "root_id": task_id, "retries": 0},
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=task_id,
            message_id=planned.message_id,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await (await self._opened()).default_exchange.publish(message, "celery", mandatory=True)


class _Worker:
    """A process with all its children, killed together, as a container is."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=log.parent, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        if process := Process.of(self._process.pid):
            tie(process)

    def end(self, number: signal.Signals) -> None:
        """It and its children are gone."""
        if number == signal.SIGTERM:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class _Run:
    """One contestant, with everything that it needs to itself."""

    generator: Generator
    mixture: Mixture
    oss: Storage
    _amqp_url: str
    _database_url: str

    def __init__(self, services: Services, contestant: Contestant) -> None:
        self._services = services
        self._contestant = contestant
        self._name = services.fresh_name()
        self._directory = services.directory / self._name
        self._temp_dir = self._directory / "temp"
        self._numbers = count(1)
        self._confirmed: list[Planned] = []
        self._workers: list[_Worker] = []

    @classmethod
    @asynccontextmanager
    async def opened(cls, services: Services, contestant: Contestant) -> AsyncIterator["_Run"]:
        """Nobody works yet."""
        run = cls(services, contestant)
        run._temp_dir.mkdir(parents=True)
        async with AsyncExitStack() as stack:
            run._amqp_url = services.rabbitmq.add_vhost(run._name)
            stack.callback(services.rabbitmq.delete_vhost, run._name)
            run._database_url = services.postgres.add_database(run._name)
            for statement in contestant.tables:
                ask(run._database_url, statement)
            run.oss = await stack.enter_async_context(Storage(run._directory / "oss"))
            host = await stack.enter_async_context(ImageHost())
            run.mixture = _ReadableMixture(host, lambda url: url, run._temp_dir)
            kind = _TaskProducer if contestant.speaks_celery else _EventProducer
            run.generator = kind(run._amqp_url, run._confirmed.append)
            stack.push_async_callback(run.generator.close)
            stack.callback(run._end_workers, signal.SIGKILL)
            await run._declare()
            yield run

    async def result(self, events: int) -> dict[str, int]:
        """The events were published and worked on under faults, and what can come to an end has."""
        self._workers = [self._start() for _ in range(2)]
        await self._taken()
        stream = list(self.mixture.events(events))
        took_s = len(stream) / _PER_S
        publishing = asyncio.create_task(self.generator.publish_all(stream, per_s=_PER_S))
        harm = [asyncio.create_task(each) for each in (self._restart_database(took_s), self._brown_out(took_s))]
        kills = await self._kill_while(publishing)
        await asyncio.gather(publishing, *harm)
        stuck = await self._settled()
        await asyncio.to_thread(self._end_workers, signal.SIGTERM)
        places = Places(self._amqp_url, self._database_url, self.oss, self._temp_dir, self._contestant.dead_queue)
        counted: Tally = await tally(self._confirmed, places)
        return {**asdict(counted), "stuck": stuck, "kills": kills}

    async def _kill_while(self, publishing: asyncio.Task[None]) -> int:
        kills = 0
        for victim in cycle(range(len(self._workers))):
            await self._taken()  # or who starts slowly would be killed before it can do any harm
            done, _ = await asyncio.wait((publishing,), timeout=_WORK_S)
            if done:
                break
            await asyncio.to_thread(self._workers[victim].end, signal.SIGKILL)
            self._workers[victim] = self._start()
            kills += 1
        return kills

    async def _restart_database(self, took_s: float) -> None:
        before = 0.0
        for part in _DATABASE_RESTARTS:
            await asyncio.sleep((part - before) * took_s)
            before = part
            await asyncio.to_thread(self._services.postgres.kill)
            await asyncio.to_thread(self._services.postgres.start)

    async def _brown_out(self, took_s: float) -> None:
        begin, end = _BROWNOUT
        await asyncio.sleep(begin * took_s)
        self.oss.refused_share = _REFUSED_SHARE
        await asyncio.sleep((end - begin) * took_s)
        self.oss.refused_share = 0.0

    async def _settled(self) -> int:
        """Messages that stay in the contestant's queues, delivered or not, when nothing changes any more."""
        quiet, before = 0, None
        for _ in range(_SETTLE_TIMEOUT_S // _LOOK_EVERY_S):
            await asyncio.sleep(_LOOK_EVERY_S)
            now = (await asyncio.to_thread(self._messages), ask(self._database_url, "SELECT count(*) FROM job_outputs"))
            quiet = quiet + 1 if now == before else 0
            before = now
            if quiet >= (_QUIET_LOOKS if not now[0] else 4 * _QUIET_LOOKS):
                break
        return await asyncio.to_thread(self._messages)

    def _messages(self) -> int:
        lines = self._services.rabbitmq.ctl("list_queues", "-p", self._name, "name", "messages").splitlines()
        sizes = dict(line.split("\t") for line in lines)
        return sum(int(sizes.get(queue, 0)) for queue in self._contestant.queues)

    async def _declare(self) -> None:
        connection = await aio_pika.connect(self._amqp_url)
        async with connection, connection.channel() as channel:
            images = await channel.declare_exchange(topology.EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
            completions = await channel.declare_queue(COMPLETIONS, durable=True)
            await completions.bind(images, "image.upload.completed")

    async def _taken(self) -> None:
        """Both workers consume."""
        connection = await aio_pika.connect(self._amqp_url)
        async with connection, asyncio.timeout(_START_TIMEOUT_S):
            while True:
                with suppress(aio_pika.exceptions.ChannelNotFoundEntity):
                    async with connection.channel() as channel:
                        queue = await channel.declare_queue(self._contestant.queues[0], passive=True)
                        if (queue.declaration_result.consumer_count or 0) >= len(self._workers):
                            return
                await asyncio.sleep(0.2)

    def _start(self) -> _Worker:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._directory),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(_ROOT),
            "AMQP_URL": self._amqp_url,
            "DATABASE_URL": self._database_url,
            "OSS_BUCKET": self.oss.bucket,
            "OSS_REGION": "cn-hangzhou",
            "OSS_ACCESS_KEY": ACCOUNT.access_key_id,
            "OSS_SECRET": ACCOUNT.access_key_secret,
            "OSS_ENDPOINT": self.oss.url,
            "TEMP_DIR": str(self._temp_dir),
            "SOURCE_ALLOWED_NETWORKS": "127.0.0.0/8",
            "RETRY_DELAYS_S": ",".join(map(str, RETRY_DELAYS_S)),
            "METRICS_PORT": "0",
            **(self._contestant.env or {}),
        }
        command = list(self._contestant.command)
        if self._contestant.speaks_celery:
            command.append(f"--hostname=worker-{next(self._numbers)}@%h")  # as its guide asks of several on one host
        return _Worker(command, env, self._directory / "workers.log")

    def _end_workers(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.end(number)


def _print(results: Mapping[str, Mapping[str, int]]) -> None:
    table = Table(title="After the same faults", title_justify="left")
    table.add_column("")
    for name in results:
        table.add_column(name, justify="right")
    for kind in (*(field.name for field in fields(Tally)), "stuck", "kills"):
        table.add_row(kind.replace("_", " "), *(str(result[kind]) for result in results.values()))
    Console().print(table)
