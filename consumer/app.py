"""The composition root: what is opened, in which order, and closed in reverse."""

import asyncio
import math
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, get_args

import structlog

from consumer.adapters import migrations, postgres, rabbit
from consumer.adapters.address_guard import AddressGuard
from consumer.adapters.file_source import FileSource
from consumer.adapters.host_turns import HostTurns
from consumer.adapters.http_source import HttpSource
from consumer.adapters.image_source import ImageSources
from consumer.adapters.inspect import PillowInspector
from consumer.adapters.metrics import Metrics
from consumer.adapters.oss import OssStore
from consumer.adapters.postgres_cleanup import PostgresCleanup
from consumer.adapters.postgres_records import PostgresRecords
from consumer.adapters.postgres_trials import PostgresTrials
from consumer.adapters.rabbit_consumer import RabbitConsumer
from consumer.adapters.rabbit_publisher import RabbitPublisher
from consumer.adapters.rabbit_schedule import RabbitSchedule
from consumer.adapters.reading_apart import read_apart
from consumer.adapters.temp_dir import TempDirectory
from consumer.adapters.web import StatusServer
from consumer.core.errors import Dependency, StalledError, StartError
from consumer.handlers.clean_expired import CleanExpired
from consumer.handlers.clean_temp import CleanTemp
from consumer.handlers.clean_up import CleanUp
from consumer.handlers.find_orphans import FindOrphans
from consumer.handlers.store_image import StoreImage
from consumer.runtime.cleaning import Cleaning
from consumer.runtime.dispatch import Dispatch
from consumer.runtime.health import Health
from consumer.runtime.intake import Intake
from consumer.runtime.settle import Settle
from consumer.runtime.stop import FAILED, Stop
from consumer.runtime.trial import Trial
from consumer.runtime.turns import Turns
from consumer.runtime.worker import Worker
from consumer.settings import DeclareSettings, WorkerSettings
from schemas.environment import PART_PREFIX, DatabaseSettings

_LAG_INTERVAL_S: Final = 1.0
_TOUCH_EVERY_S: Final = 60.0
_THREADS_BESIDES: Final = 8
_SHARE_OF_HOST: Final = 0.25  # of the prefetch, for a source that does not answer: four of them would fill it

_log = structlog.get_logger()


async def declare(settings: DeclareSettings) -> None:
    """The broker has all that the product needs; waits for one that is away.

    Raises:
        StartError: it refuses us, or has things of our names with other arguments.
    """
    url = settings.amqp_url.get_secret_value()
    await rabbit.close(await rabbit.prepare(url, "image-uploads declare", settings.retry_delays_s))


async def migrate(settings: DatabaseSettings) -> list[str]:
    """The database has all tables; returns the files that were applied. Waits for a database that is away.

    Raises:
        StartError: it refuses us, or has tables of our names that something else made.
    """
    pool = await postgres.open_pool(settings.database_url.get_secret_value())
    try:
        return await migrations.migrate(pool)
    finally:
        await pool.close()


@dataclass(frozen=True, slots=True)
class _Parts:
    """What runs in one worker process."""

    metrics: Metrics
    health: Health
    worker: Worker
    consumer: RabbitConsumer
    schedule: RabbitSchedule
    cleaning: Cleaning


async def work(settings: WorkerSettings) -> int:
    """Deliveries are worked off until SIGTERM or SIGINT; returns the exit code.

    What was begun is finished and acked first, within the drain timeout; what was not comes again elsewhere.

    Raises:
        StartError: something must be changed before a worker can start.
    """
    stop = Stop(settings.drain_timeout_s)
    async with AsyncExitStack() as stack:
        parts = await stop.or_result(_open(settings, stack))
        if parts is not None:
            stop.is_idle = parts.worker.is_idle
            if await stop.or_result(_run(parts)):
                stop.ask(FAILED)
            await stop.drain(_drain(parts))
        _log.info("stopped")
    return stop.exit_code


async def _drain(parts: _Parts) -> None:
    await parts.consumer.stop()
    await parts.worker.drain()


async def _open(settings: WorkerSettings, stack: AsyncExitStack) -> _Parts:
    # Names whose servers are silent hold a thread each, and TEMP_DIR needs some of them.
    threads = ThreadPoolExecutor(2 * settings.prefetch + _THREADS_BESIDES)
    asyncio.get_running_loop().set_default_executor(threads)
    worker_id = f"{socket.gethostname()}-{os.getpid()}"
    metrics = Metrics()
    intake = Intake(metrics.intake_paused)
    health = Health(get_args(Dependency), metrics.dependency, intake.heed)
    status = StatusServer(metrics.exposition, lambda: health.problems() | intake.problems())
    port = await status.start(settings.metrics_host, settings.metrics_port)
    stack.push_async_callback(status.close)
    _log.info("serving /metrics, /healthz and /readyz", host=settings.metrics_host, port=port)

    pool = await postgres.open_pool(settings.database_url.get_secret_value())
    stack.push_async_callback(postgres.close_pool, pool)
    for file in await migrations.migrate(pool):
        _log.info("migrated", file=file)
    records = PostgresRecords(pool)

    store = OssStore(settings, timeout_s=settings.oss_timeout_s)
    stack.push_async_callback(store.close)
    source = _source(settings, stack)
    amqp_url = settings.amqp_url.get_secret_value()
    broker = RabbitPublisher(amqp_url, worker_id)
    stack.push_async_callback(broker.close)

    handler = StoreImage(
        source=source,
        inspect=PillowInspector(settings.max_image_pixels),
        store=store,
        records=records,
        meter=metrics,
        retention=timedelta(days=settings.retention_days) if settings.retention_days else None,
    )
    worker = Worker(
        Dispatch(handler, health.answers, settings.handler_timeout_s, settings.retry_delays_s),
        Settle(records, broker, source, store, metrics, worker_id),
        Trial(PostgresTrials(pool), read_apart, Turns(), settings.retry_delays_s),
        metrics,
    )
    consumer = RabbitConsumer(
        amqp_url,
        worker_id,
        prefetch=settings.prefetch,
        retry_delays_s=settings.retry_delays_s,
        take=worker.take,
        meter=metrics,
    )
    intake.control(consumer.pause)
    stack.push_async_callback(consumer.close)
    await consumer.start()

    schedule = RabbitSchedule(
        amqp_url, worker_id, interval_s=settings.cleanup_interval_s, retry_delays_s=settings.retry_delays_s
    )

    async def probe_broker() -> None:
        sizes: dict[str, int] = {}
        try:
            sizes = await consumer.queue_sizes()
            await broker.probe()
            sizes |= await schedule.queue_sizes()
        finally:
            metrics.queues(sizes)  # no figure rather than one that is no longer true

    health.watch("broker", probe_broker)
    health.watch("database", records.probe)
    health.watch("storage", store.probe)
    health.watch("temp_dir", partial(_probe_temp_dir, settings.temp_dir))
    clean_up = _clean_up(settings, PostgresCleanup(pool), store, broker, schedule, metrics)
    cleaning = Cleaning(clean_up, broker, schedule, metrics, is_scheduled=settings.cleanup_interval_s > 0)
    return _Parts(metrics, health, worker, consumer, schedule, cleaning)


def _clean_up(
    settings: WorkerSettings,
    records: PostgresCleanup,
    store: OssStore,
    broker: RabbitPublisher,
    schedule: RabbitSchedule,
    metrics: Metrics,
) -> CleanUp:
    directory, max_age = TempDirectory(settings.temp_dir), timedelta(seconds=settings.temp_max_age_s)
    apart = min(timedelta(seconds=settings.handler_timeout_s), max_age)
    return CleanUp(
        {
            "temp": CleanTemp(directory, records, schedule, max_age, apart),
            "expired": CleanExpired(store, records, broker),
            "orphans": FindOrphans(store, records, timedelta(seconds=settings.orphan_grace_s)),
        },
        metrics,
    )


def _source(settings: WorkerSettings, stack: AsyncExitStack) -> ImageSources:
    try:
        settings.temp_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"TEMP_DIR {settings.temp_dir} cannot be made: {error.strerror}") from error
    guard = AddressGuard(settings.source_allowed_hosts, settings.source_allowed_networks)
    turns = HostTurns(math.ceil(settings.prefetch * _SHARE_OF_HOST), timeout_s=settings.source_timeout_s)
    http = HttpSource(guard, turns, max_bytes=settings.max_image_bytes)
    stack.push_async_callback(http.close)
    files = FileSource(settings.temp_dir, max_bytes=settings.max_image_bytes)
    return ImageSources(
        http,
        files,
        directory=settings.temp_dir,
        max_bytes=settings.max_image_bytes,
        timeout_s=settings.source_timeout_s,
        touch_every_s=min(_TOUCH_EVERY_S, settings.temp_max_age_s / 3),
    )


async def _run(parts: _Parts) -> bool:
    """Runs until it is cancelled, or until the broker delivers no more; then it returns true."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.consumer.run())
            group.create_task(parts.health.run())
            group.create_task(parts.schedule.run(parts.cleaning.take))
            group.create_task(_watch_loop(parts.metrics))
    except* StalledError as stalled:
        _log.error("giving up", error=str(stalled.exceptions[0]))
    return True


async def _watch_loop(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_INTERVAL_S
        await asyncio.sleep(_LAG_INTERVAL_S)
        metrics.loop_lag(max(0.0, loop.time() - due))


async def _probe_temp_dir(directory: Path) -> None:
    # In a thread: a mount that hangs must not take the event loop along.
    (await asyncio.to_thread(TemporaryFile, prefix=PART_PREFIX, dir=directory)).close()
