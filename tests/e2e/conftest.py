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
from tests.e2e.product_process import ApiProcess, ProductProcess, WorkerProcess
from tests.e2e.watched_oss import ACCOUNT, WatchedOss
from tests.e2e.wire import RETRY_DELAYS_S, Wire


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


StartApi = Callable[..., ApiProcess]


@pytest.fixture
def started() -> Iterator[list[ProductProcess]]:
    """Programs that are gone after the test; none may have come upon an error that nobody foresaw."""
    programs: list[ProductProcess] = []
    yield programs
    running = [program for program in programs if program.alive]
    for program in running:
        program.terminate()
    try:
        for program in running:
            program.await_end()
    finally:
        for program in running:
            program.kill()
    for program in programs:
        assert "Traceback" not in program.log, program.log
        assert not program.lines("unexpected error"), program.log


@pytest.fixture
def start_worker(settings: dict[str, str], tmp_path: Path, started: list[ProductProcess]) -> StartWorker:
    """Starts a worker with each call, with these settings over the usual ones."""

    def start(*, fresh: bool = False, **more: str) -> WorkerProcess:
        worker = WorkerProcess({**settings, **more}, tmp_path / f"worker-{len(started) + 1}", fresh=fresh)
        started.append(worker)
        return worker

    return start


@pytest.fixture
def start_api(amqp_url: str, database_url: str, tmp_path: Path, started: list[ProductProcess]) -> StartApi:
    """Starts an ingress with each call, with these settings over the least that it needs."""
    least = {"AMQP_URL": amqp_url, "DATABASE_URL": database_url, "API_USERS_FILE": str(tmp_path / "users.json")}

    def start(**more: str) -> ApiProcess:
        api = ApiProcess({**least, **more}, tmp_path / f"api-{len(started) + 1}")
        started.append(api)
        return api

    return start


@pytest.fixture
def worker(start_worker: StartWorker) -> WorkerProcess:
    """A worker that is ready."""
    running = start_worker()
    running.await_ready()
    return running


@pytest.fixture
def api(start_worker: StartWorker, start_api: StartApi) -> ApiProcess:
    """An ingress that is ready, beside a worker, and waits longer for it than a test does."""
    worker, running = start_worker(), start_api(API_WAIT_S="60")
    worker.await_ready()
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
