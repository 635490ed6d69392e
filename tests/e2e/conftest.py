"""The product as processes, between a real broker, a real database, an OSS-protocol server and an image host."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from sandbox.samples import picture
from tests.e2e.background import Background, background
from tests.e2e.image_host import ImageHost
from tests.e2e.watched_oss import ACCOUNT, WatchedOss
from tests.e2e.wire import RETRY_DELAYS_S, Wire
from tests.e2e.worker_process import WorkerProcess


@pytest.fixture(scope="session")
def servers() -> Iterator[Background]:
    """Where the servers of these tests run: a test may block, and they answer all the same."""
    with background() as running:
        yield running


@pytest.fixture
def oss(servers: Background, tmp_path: Path) -> Iterator[WatchedOss]:
    """An empty bucket, readable by everybody."""
    server = WatchedOss(tmp_path / "oss")
    servers.run(server.__aenter__())
    yield server
    servers.run(server.__aexit__())


@pytest.fixture
def image_host(servers: Background) -> Iterator[ImageHost]:
    """A web server that has no image yet."""
    host = ImageHost()
    servers.run(host.__aenter__())
    yield host
    servers.run(host.__aexit__())


@pytest.fixture(scope="session")
def png() -> bytes:
    """A small PNG."""
    return picture("PNG", (64, 48))


@pytest.fixture
def image_url(image_host: ImageHost, png: bytes) -> str:
    """Where a PNG is to be had over HTTP."""
    return image_host.give("image.png", png)


@pytest.fixture
def temp_dir(tmp_path: Path) -> Path:
    """TEMP_DIR of the workers and generators."""
    directory = tmp_path / "temp"
    directory.mkdir()
    return directory


@pytest.fixture
def settings(amqp_url: str, database_url: str, oss: WatchedOss, temp_dir: Path) -> dict[str, str]:
    """All that a worker needs; the ladder is short, and nothing is out of reach."""
    return {
        "AMQP_URL": amqp_url,
        "DATABASE_URL": database_url,
        "OSS_BUCKET": oss.bucket,
        "OSS_REGION": "cn-hangzhou",
        "OSS_ACCESS_KEY": ACCOUNT.access_key_id,
        "OSS_SECRET": ACCOUNT.access_key_secret,
        "OSS_ENDPOINT": oss.url,
        "OSS_BASE_URL": oss.public_url,
        "TEMP_DIR": str(temp_dir),
        "SOURCE_ALLOWED_NETWORKS": "127.0.0.0/8",
        "RETRY_DELAYS_S": ",".join(map(str, RETRY_DELAYS_S)),
    }


StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def start_worker(settings: dict[str, str], tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a worker with each call, with these settings over the usual ones; all are gone after the test.

    No worker may have come upon an error that nobody foresaw.
    """
    started: list[WorkerProcess] = []

    def start(**more: str) -> WorkerProcess:
        started.append(WorkerProcess({**settings, **more}, tmp_path / f"worker-{len(started) + 1}"))
        return started[-1]

    yield start
    for worker in started:
        if worker.alive:
            worker.stop()
    for worker in started:
        assert "Traceback" not in worker.log, worker.log
        assert not worker.lines("unexpected error"), worker.log


@pytest.fixture
def worker(start_worker: StartWorker) -> WorkerProcess:
    """A worker that is ready."""
    running = start_worker()
    running.await_ready()
    return running


@pytest_asyncio.fixture
async def wire(amqp_url: str) -> AsyncIterator[Wire]:
    """The broker, with all queues, as generators and subscribers see it."""
    async with Wire.opened(amqp_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The database as anybody with a query sees it; its tables are there once a worker is ready."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without credentials."""
    async with aiohttp.ClientSession() as session:
        yield session
