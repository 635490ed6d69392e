"""What has expired goes by itself, and a cleanup can be asked for."""

import asyncio
import json
from pathlib import Path
from typing import TypeAlias

import aiohttp
import asyncpg
import pytest

from producer.api.users import UsersFile
from producer.outcome import Outcomes
from sandbox.process import eventually
from schemas.events import ImageOutputExpired, output_id
from tests import programs
from tests.e2e.api_client import PASSWORD, ApiClient
from tests.e2e.conftest import StartWorker
from tests.e2e.product_process import ApiProcess, basics
from tests.e2e.wire import USER, Wire, event

pytestmark = pytest.mark.real

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

REMOVED = 'image_uploads_cleanup_removed_total{task="expired"} 1.0'
SUCCEEDED = 'image_uploads_cleanup_runs_total{outcome="succeeded"}'


async def test_an_output_whose_time_has_come_goes_with_the_next_tick_and_stays_gone(
    start_worker: StartWorker,
    wire: Wire,
    database: Database,
    http: aiohttp.ClientSession,
    image_url: str,
    amqp_url: str,
    tmp_path: Path,
) -> None:
    worker = start_worker(CLEANUP_INTERVAL_S="1")
    await asyncio.to_thread(worker.await_ready)
    published = event(image_url)
    await wire.publish(published)
    stored = (await wire.completion(published)).data["imageUrl"]
    async with Outcomes(amqp_url) as outcomes:
        with outcomes.of(published) as outcome:
            await database.execute('UPDATE job_outputs SET "expiresAt" = now()')
            news = await asyncio.wait_for(outcome, 30)
        assert isinstance(news, ImageOutputExpired)
        assert news.data.output_id == output_id(published.source, published.id)
        assert await asyncio.to_thread(eventually, lambda: REMOVED in worker.get("/metrics")[1], 30)
        assert await database.fetchval('SELECT "deletedAt" FROM job_outputs') is not None
        async with http.get(stored) as response:
            assert response.status == 404

        with outcomes.of(published) as outcome:
            await wire.publish(published)
            assert await asyncio.wait_for(outcome, 30) == news

    printed = tmp_path / "cleanup.json"
    words = ["producer", "cleanup", "--wait", "--json"]
    command = programs.start(words, {**basics(tmp_path), "AMQP_URL": amqp_url}, tmp_path, printed)
    await asyncio.to_thread(command.join, 60)
    assert command.exitcode == 0, printed.read_text()
    done = json.loads(printed.read_text())
    assert {task: result["count"] for task, result in done["tasks"].items()} == {"temp": 0, "expired": 0, "orphans": 0}
    assert done["errors"] == []
    runs = [line for line in worker.get("/metrics")[1].splitlines() if line.startswith(SUCCEEDED)]
    assert float(runs[0].split()[-1]) >= 2


async def test_a_request_that_is_repeated_after_its_image_has_expired_is_answered_as_gone(
    tmp_path: Path, api: ApiProcess, database: Database, http: aiohttp.ClientSession, image_url: str
) -> None:
    UsersFile(tmp_path / "users.json").add(USER, PASSWORD)
    client = ApiClient(api.url, http)
    await client.login(USER)
    assert (await client.generate(image_url, key="fox")).status == 200
    await database.execute('UPDATE job_outputs SET "expiresAt" = now()')
    for _ in range(2):
        async with asyncio.timeout(30):  # the ingress waits for longer
            answer = await client.generate(image_url, key="fox")
        assert (answer.status, answer.reason) == (410, "expired")
    answer = await client.generate(image_url, prompt="another fox", key="fox")
    assert (answer.status, answer.reason) == (422, "conflicting_event")
    assert (await client.generate(image_url, key="another")).status == 200
