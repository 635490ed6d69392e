"""Trouble of a neighbour or of a source delays what it concerns, costs nothing, and ends by itself."""

import asyncio
import json
import time
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from sandbox.oss.faults import Fault, Kind
from sandbox.process import eventually
from schemas import topology
from tests.e2e.background import Background
from tests.e2e.conftest import StartWorker
from tests.e2e.image_host import ImageHost
from tests.e2e.product_process import ProductProcess, WorkerProcess
from tests.e2e.silent_names import DOMAIN
from tests.e2e.watched_oss import WatchedOss
from tests.e2e.wire import COMPLETED, DELAYED, FAILED, Wire, event

pytestmark = pytest.mark.real

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

MANY = 20


class SilentNamesWorker(WorkerProcess):
    """See `tests.e2e.silent_names`."""

    command = ("tests.e2e.silent_names", "worker")


async def shows(worker: WorkerProcess, *lines: str) -> bool:
    return await asyncio.to_thread(eventually, lambda: set(lines) <= set(worker.get("/metrics")[1].splitlines()), 30)


async def test_names_that_nobody_resolves_keep_no_other_source_waiting_and_no_stop(
    settings: dict[str, str], temp_dir: Path, started: list[ProductProcess], wire: Wire, tmp_path: Path, png: bytes
) -> None:
    worker = SilentNamesWorker({**settings, "DRAIN_TIMEOUT_S": "1"}, tmp_path / "worker")
    started.append(worker)
    await asyncio.to_thread(worker.await_ready)
    for number in range(MANY):
        await wire.publish(event(f"http://cdn-{number}{DOMAIN}/fox.png", f"silent-{number}"))
    assert await shows(worker, f"image_uploads_in_flight {MANY:.1f}")
    for number in range(MANY):
        file = temp_dir / f"{number}.png"
        file.write_bytes(png)
        await wire.publish(event(file.as_uri(), f"file-{number}"))
    await wire.hears(COMPLETED, MANY)
    assert await shows(worker, f"image_uploads_in_flight {MANY:.1f}")
    assert (await asyncio.to_thread(worker.get, "/readyz"))[0] == 200
    assert await asyncio.to_thread(worker.stop) == 1  # threads that never end, too, are left behind


async def test_while_oss_fails_its_probe_deliveries_wait_in_the_queue_and_go_on_when_it_answers(
    worker: WorkerProcess, wire: Wire, database: Database, oss: WatchedOss, image_url: str
) -> None:
    oss.faults.add(Fault(Kind.DENY, method="PUT"))
    await wire.publish(first := event(image_url))
    await wire.hears(DELAYED, about=first)
    assert await shows(
        worker, 'image_uploads_intake_paused{dependency="storage"} 1.0', "image_uploads_consumer_attached 0.0"
    )
    status, body = await asyncio.to_thread(worker.get, "/readyz")
    assert (status, json.loads(body)["problems"]["intake"]) == (503, "paused until there is an answer from: storage")
    assert "broker" not in json.loads(body)["problems"]

    waiting = [event(image_url) for _ in range(MANY)]
    for published in waiting:
        await wire.publish(published)
    assert await wire.waiting(topology.WORK_QUEUE) >= MANY
    oss.faults.clear()
    mended_at = time.monotonic()
    await wire.hears(COMPLETED, MANY + 1)
    assert time.monotonic() - mended_at < 10, worker.log
    assert await shows(
        worker, 'image_uploads_intake_paused{dependency="storage"} 0.0', "image_uploads_consumer_attached 1.0"
    )
    assert await asyncio.to_thread(worker.stop) == 0

    assert {news.data["causeId"] for news in wire.news if news.type == DELAYED} == {first.id}
    assert {line["attempt"] for line in worker.lines("stored")} == {1}
    assert await database.fetchval("SELECT count(*) FROM job_failures") == 0


async def test_an_object_that_stays_refused_while_others_are_taken_fails_as_storage_refused(
    worker: WorkerProcess, wire: Wire, oss: WatchedOss, image_url: str
) -> None:
    refused = event(image_url, "refused")
    oss.faults.add(Fault(Kind.DENY, method="PUT", key_prefix=f"users/{refused.data.user_id}/jobs/refused/"))
    await wire.publish(refused)
    await wire.publish(good := event(image_url, "good"))
    failure = await wire.failure(refused)
    await wire.completion(good)
    assert (failure.data["reason"], failure.data["attempts"]) == ("storage_refused", 3)
    assert not worker.lines("intake is paused")


async def test_a_source_that_does_not_answer_takes_its_share_and_delays_only_its_own(
    start_worker: StartWorker, wire: Wire, servers: Background, image_host: ImageHost, png: bytes
) -> None:
    silent = ImageHost()
    servers.run(silent.__aenter__())
    try:
        silent.hold()
        worker = start_worker(PREFETCH="8", SOURCE_TIMEOUT_S="2", RETRY_DELAYS_S="1,3")
        worker.await_ready()
        theirs = [event(silent.give(f"{number}.png", png), f"theirs-{number}") for number in range(MANY)]
        ours = [event(image_host.give(f"{number}.png", png), f"ours-{number}") for number in range(MANY)]
        for published in theirs + ours:
            await wire.publish(published)
        for published in ours:
            await wire.completion(published)
        assert silent.requests.total() <= 2 * 2  # a share of two, and it may have been given up once meanwhile
        silent.release()
        for published in theirs:
            await wire.completion(published)
        assert await asyncio.to_thread(worker.stop) == 0
    finally:
        servers.run(silent.__aexit__())
    assert not [news for news in wire.news if news.type == FAILED]
    held = {news.data["causeId"] for news in wire.news if news.type == DELAYED and news.data["held"]}
    assert held <= {published.id for published in theirs}
    assert len(held) >= MANY / 2
