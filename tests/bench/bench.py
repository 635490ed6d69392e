"""The services of a bench, and one run on them: a full queue, one process, and what it used to empty it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel

from sandbox.lifeline import tie
from sandbox.postgres import Postgres, ask
from sandbox.process import Process, Program, eventually
from sandbox.rabbitmq import RabbitMQ
from schemas import topology
from schemas.events import CONTENT_TYPE, ImageGenerated, ImageGeneratedData, ImageUploadCompleted
from tests.bench.nginx import Nginx
from tests.bench.pictures import Picture
from tests.bench.usage import cpu_s, peak_mb

_COMPLETIONS: Final = "bench.completions"
_BARE_QUEUE: Final = "bench.bare"
_READY: Final = b"taking deliveries"
_START_TIMEOUT_S: Final = 60
_RUN_TIMEOUT_S: Final = 300
_LOOK_EVERY_S: Final = 0.01
_LAST_ACKS_S: Final = 0.2


class BrokenRunError(Exception):
    """A contender did not do what was measured."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A program that empties a queue into a table."""

    name: str
    command: Sequence[str]
    queue: str
    table: str


WORKER: Final = Contender("worker", ("-m", "consumer", "worker"), topology.WORK_QUEUE, "job_outputs")
BARE_LOOP: Final = Contender(
    "bare loop", (str(Path(__file__).with_name("bare_loop.py")), _BARE_QUEUE), _BARE_QUEUE, "bare_outputs"
)


@dataclass(frozen=True, slots=True)
class Run:
    """What a contender used for its events, its start not counted; only its peak is of its whole life."""

    events_per_s: float
    cpu_ms_per_event: float
    peak_mb: float
    rows_per_commit: float


class Bench:
    """RabbitMQ, PostgreSQL (which syncs its commits to the disk) and nginx, all private; see `opened`."""

    def __init__(self, directory: Path, pictures: Sequence[Picture]) -> None:
        self._directory = directory
        self._rabbitmq = RabbitMQ(directory / "rabbitmq")
        self._postgres = Postgres(directory / "postgres")
        self._nginx = Nginx(directory / "nginx", pictures)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Everything answers and is declared; afterwards nothing of it is left, not even its data."""
        with ExitStack() as stack:
            for service in (self._nginx, self._postgres, self._rabbitmq):
                stack.callback(service.remove)
                service.start()
            self._postgres.add_database("image_uploads")
            for command in ("declare", "migrate"):
                self._product(command)
            ask(self._database_url, "CREATE TABLE bare_outputs (LIKE job_outputs INCLUDING ALL)")
            asyncio.run(self._declare())
            yield

    def run(self, contender: Contender, picture: Picture, events: int) -> Run:
        """The contender has emptied a queue that held `events` events before it started.

        Raises:
            BrokenRunError: it has not, or rows or objects are missing or wrong.
        """
        self._forget_objects()
        ask(self._database_url, f"TRUNCATE {contender.table}")
        asyncio.run(self._fill(contender.queue, picture, events))
        program = self._program(contender)
        process = program.launch()
        tie(process)
        try:
            run = asyncio.run(self._watch(contender, program, process, events))
        finally:
            process.end(signal.SIGTERM)
        self._check(contender, picture, events)
        return run

    @property
    def _database_url(self) -> str:
        return self._postgres.database_url("image_uploads")

    def _settings(self) -> dict[str, str]:
        """Production's, but for the places; what is not here has its default."""
        return {
            "AMQP_URL": self._rabbitmq.url,
            "DATABASE_URL": self._database_url,
            "OSS_BUCKET": "bench-images",
            "OSS_REGION": "cn-hangzhou",
            "OSS_ACCESS_KEY": "bench",
            "OSS_SECRET": "bench-secret",
            "OSS_ENDPOINT": self._nginx.url,
            "TEMP_DIR": str(self._directory / "temp"),
            "SOURCE_ALLOWED_NETWORKS": "127.0.0.0/8",
            "METRICS_PORT": "0",
            "LOG_FORMAT": "json",
        }

    def _product(self, command: str) -> None:
        words = [sys.executable, "-m", "consumer", command]
        env = {"PATH": os.environ.get("PATH", os.defpath), **self._settings()}
        subprocess.run(words, env=env, cwd=self._directory, check=True, stdout=subprocess.DEVNULL)

    def _program(self, contender: Contender) -> Program:
        return Program(
            name=contender.name,
            command=[sys.executable, *contender.command],
            log=self._directory / f"{contender.name.replace(' ', '-')}.log",
            port=0,
            cwd=self._directory,  # where no .env is
            env=self._settings(),
        )

    @asynccontextmanager
    async def _channel(self) -> AsyncGenerator[AbstractChannel]:
        connection = await aio_pika.connect(self._rabbitmq.url)
        async with connection, connection.channel(on_return_raises=True) as channel:
            yield channel

    async def _declare(self) -> None:
        async with self._channel() as channel:
            images = await channel.get_exchange(topology.EXCHANGE)
            completions = await channel.declare_queue(_COMPLETIONS, durable=True)
            await completions.bind(images, ImageUploadCompleted.TYPE)
            like = next(queue for queue in topology.queues(()) if queue.name == topology.WORK_QUEUE)
            await channel.declare_queue(_BARE_QUEUE, durable=True, arguments=dict(like.arguments))

    async def _fill(self, queue: str, picture: Picture, events: int) -> None:
        async with self._channel() as channel:
            await (await channel.get_queue(_COMPLETIONS)).purge()
            url = self._nginx.source_url(picture)
            await asyncio.gather(
                *(channel.default_exchange.publish(_message(number, url), queue) for number in range(events))
            )

    async def _watch(self, contender: Contender, program: Program, process: Process, events: int) -> Run:
        cpu_before_s, began = _ready(program, process), time.perf_counter()
        async with self._channel() as channel:
            while (done := await _messages(channel, _COMPLETIONS)) < events:
                if not process.alive or time.perf_counter() - began > _RUN_TIMEOUT_S:
                    raise BrokenRunError(
                        f"the {contender.name} did {done} of {events}, and said:\n{_tail(program.log)}"
                    )
                await asyncio.sleep(_LOOK_EVERY_S)
        took_s = time.perf_counter() - began
        await asyncio.sleep(_LAST_ACKS_S)  # an ack follows its completion
        commits = ask(self._database_url, f"SELECT count(DISTINCT xmin::text) FROM {contender.table}")
        return Run(
            events_per_s=events / took_s,
            cpu_ms_per_event=(cpu_s(process.pid) - cpu_before_s) / events * 1000,
            peak_mb=peak_mb(process.pid),
            rows_per_commit=events / int(str(commits)),
        )

    def _check(self, contender: Contender, picture: Picture, events: int) -> None:
        rows = ask(self._database_url, f"SELECT count(*) FROM {contender.table}")
        objects = [path.read_bytes() == picture.content for path in self._nginx.objects()]
        if rows != events or len(objects) != events or not all(objects):
            raise BrokenRunError(f"{events} events became {rows} rows and {len(objects)} objects, {sum(objects)} right")
        if left := asyncio.run(self._left(contender.queue)):
            raise BrokenRunError(f"the {contender.name} left {left} of {events} events in the queue")

    async def _left(self, queue: str) -> int:
        async with self._channel() as channel:
            return await _messages(channel, queue)

    def _forget_objects(self) -> None:
        for path in self._nginx.objects():
            path.unlink()


def _message(number: int, url: str) -> aio_pika.Message:
    event = ImageGenerated(
        id=str(uuid4()),
        source="/generators/sdxl-3",
        time=datetime.now(UTC),
        data=ImageGeneratedData(
            job_id=f"job-{number}",
            user_id="test@factory-buy.com",
            image_url=url,
            prompt="a red fox in the snow, looking over its shoulder, golden hour, 35 mm, shallow depth of field",
            metadata={"model": "sdxl", "steps": 30, "seed": number},
        ),
    )
    return aio_pika.Message(
        event.body(),
        content_type=CONTENT_TYPE,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=event.id,
        correlation_id=event.data.job_id,
    )


def _ready(program: Program, process: Process) -> float:
    """It subscribes at this moment; the CPU time that its start took."""
    if eventually(lambda: _READY in program.log.read_bytes() or not process.alive, _START_TIMEOUT_S, every_s=0.001):
        with suppress(FileNotFoundError):
            return cpu_s(process.pid)
    raise BrokenRunError(f"the {program.name} did not start, and said:\n{_tail(program.log)}")


async def _messages(channel: AbstractChannel, queue: str) -> int:
    declared = await channel.declare_queue(queue, passive=True)
    return declared.declaration_result.message_count or 0


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
