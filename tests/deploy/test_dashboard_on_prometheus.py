"""Every expression of the dashboard, run on a real Prometheus that scrapes a worker and an ingress under load."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import count
from math import isnan
from pathlib import Path
from urllib.request import Request, urlopen

import aiohttp
import pytest
import yaml

from producer import Publisher
from sandbox.object_store import ObjectStore
from sandbox.process import Program, eventually, free_port
from sandbox.prometheus import Prometheus, Sample
from sandbox.samples import picture
from sandbox.worker import Worker
from schemas import topology
from tests.deploy.compose_file import ROOT
from tests.deploy.dashboard_file import Query, queries
from tests.e2e.image_host import UNAVAILABLE, ImageHost

CONFIGURATION = ROOT / "deploy" / "prometheus" / "prometheus.yml"

USER = "test@factory-buy.com"
HELD_USER = "held@factory-buy.com"
WINDOW = "5s"  # what Grafana would give $__rate_interval, were it scraped every second, and a bit
PAUSE_S = 0.05  # between the rounds of the load
PATIENCE_S = 60
OUTCOMES = {"stored", "duplicate", "held", "retried", "failed"}


def test_prometheus_understands_its_configuration() -> None:
    assert shutil.which("promtool"), "run `sandbox/setup prometheus`"
    done = subprocess.run(
        ["promtool", "check", "config", "--lint-fatal", str(CONFIGURATION)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def scraping(targets: Mapping[str, str]) -> str:
    """The configuration of ours, but each job scrapes this one target, and every second."""
    content = yaml.safe_load(CONFIGURATION.read_text())
    content["global"]["scrape_interval"] = "1s"
    assert {job["job_name"] for job in content["scrape_configs"]} == set(targets)
    for job in content["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    return yaml.safe_dump(content)


@pytest.fixture
def object_store(tmp_path: Path) -> Iterator[ObjectStore]:
    """A bucket that is too busy for the objects of one user."""
    with ObjectStore(tmp_path / "oss") as running:
        fault = [{"kind": "throttle", "method": "PUT", "key_prefix": f"users/{HELD_USER}"}]
        request = Request(f"{running.url}/-/faults", json.dumps(fault).encode(), method="PUT")
        urlopen(request, timeout=10).close()
        yield running


@pytest.fixture
def worker(amqp_url: str, database_url: str, object_store: ObjectStore, tmp_path: Path) -> Iterator[Worker]:
    settings = {
        "AMQP_URL": amqp_url,
        "DATABASE_URL": database_url,
        "OSS_BUCKET": object_store.bucket,
        "OSS_REGION": object_store.region,
        "OSS_ACCESS_KEY": object_store.access_key,
        "OSS_SECRET": object_store.secret,
        "OSS_ENDPOINT": object_store.url,
        "TEMP_DIR": str(tmp_path / "temp"),
        "SOURCE_ALLOWED_NETWORKS": "127.0.0.0/8",
        "RETRY_DELAYS_S": "1,2",
    }
    with Worker(tmp_path / "worker", settings) as running:
        yield running


@pytest.fixture
def ingress(amqp_url: str, database_url: str, tmp_path: Path) -> Iterator[str]:
    """What stands before /metrics of an ingress."""
    directory = tmp_path / "api"
    directory.mkdir()
    port = free_port()
    program = Program(
        name="api",
        command=[sys.executable, "-m", "producer", "api"],
        log=directory / "api.log",
        port=port,
        cwd=directory,
        env={
            "HOME": str(directory),
            "PYTHONPATH": str(ROOT),
            "AMQP_URL": amqp_url,
            "DATABASE_URL": database_url,
            "API_PORT": str(port),
        },
    )
    process = program.launch()
    try:
        program.await_ready(process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.end(signal.SIGTERM)


@pytest.fixture
def prometheus(worker: Worker, ingress: str, tmp_path: Path) -> Iterator[Prometheus]:
    targets = {"worker": worker.url.removeprefix("http://"), "api": ingress.removeprefix("http://")}
    with Prometheus(tmp_path / "prometheus", scraping(targets)) as running:
        yield running


@asynccontextmanager
async def load(amqp_url: str, ingress: str) -> AsyncIterator[None]:
    """As long as it lasts, events come in that end in every way there is, and the ingress is asked."""
    async with ImageHost() as host, Publisher(amqp_url) as publisher, aiohttp.ClientSession() as session:
        image = host.give("fox.png", picture("PNG", (64, 48)))
        page = host.give("page.png", b"<!doctype html><title>not an image</title>")
        away = host.give("away.png", UNAVAILABLE)

        async def publish(event_id: str, url: str, user_id: str = USER) -> None:
            await publisher.publish(image_url=url, job_id="load", user_id=user_id, source="/load", id=event_id)

        async def rounds() -> None:
            await asyncio.gather(*(publish(f"held-{number}", image, HELD_USER) for number in range(10)))
            for number in count():
                await asyncio.gather(
                    publish(f"stored-{number}", image),
                    publish(f"stored-{max(0, number - 20)}", image),  # again
                    publish(f"failed-{number}", page),
                    publish(f"retried-{number}", away),
                )
                async with session.get(f"{ingress}/ai/jobs/unknown") as answer:
                    assert answer.status == 401
                await asyncio.sleep(PAUSE_S)

        running = asyncio.create_task(rounds())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


class Screen:
    """The dashboard's panels, filled by what Prometheus answers."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus
        self._shown: dict[Query, list[Sample]] = {}

    def empty(self) -> list[Query]:
        """All expressions are run; those that have nothing to show, or something that is no number."""
        self._shown = {query: self._prometheus.query(query.now(window=WINDOW)) for query in queries()}
        return [query for query, found in self._shown.items() if not found or any(isnan(it.value) for it in found)]

    def values(self, panel: str, *labels: str) -> dict[str, float]:
        """What the panel showed when it was last filled, by the values of these labels."""
        found = [sample for query, samples in self._shown.items() if query.panel == panel for sample in samples]
        return {" ".join(sample.labels[label] for label in labels): sample.value for sample in found}

    def value(self, panel: str) -> float:
        """The one number that it showed."""
        (number,) = self.values(panel).values()
        return number


@pytest.mark.real
async def test_under_load_every_expression_of_the_dashboard_has_something_to_show(
    amqp_url: str, worker: Worker, ingress: str, prometheus: Prometheus, services_used: set[str]
) -> None:
    services_used.add("Prometheus")
    screen = Screen(prometheus)

    def everything_shows() -> bool:
        if screen.empty():
            return False
        outcomes = screen.values("What becomes of deliveries", "outcome")
        return outcomes.keys() == OUTCOMES and min(outcomes.values()) > 0

    async with load(amqp_url, ingress):
        done = await asyncio.to_thread(eventually, everything_shows, PATIENCE_S, 0.5)
    assert done, (screen.empty(), screen.values("What becomes of deliveries", "outcome"), worker.log.read_text())

    assert screen.value("Images stored") > 1
    assert 0 <= screen.value("Since the last stored image") < 30
    assert 0.1 < screen.value("Share that failed") < 0.9
    assert screen.value("Workers that take deliveries") == 1
    assert screen.values("Failed, by reason", "reason").keys() == {"not_an_image", "source_unavailable"}
    assert screen.values("Failed in the chosen time", "reason")["not_an_image"] > 1
    assert {"held storage_unavailable", "retried source_unavailable"} <= screen.values(
        "Delayed, by reason", "outcome", "reason"
    ).keys()
    assert screen.values("Where does the time go?", "stage").keys() == {
        "fetch",
        "inspect",
        "store",
        "record",
        "announce",
    }
    assert set(screen.values("Do the neighbours answer?", "dependency").values()) == {1}
    assert screen.values("Messages, by queue", "queue").keys() == {queue.name for queue in topology.queues((1, 2))}
    assert screen.values("Requests, by status", "code").keys() == {"401"}
