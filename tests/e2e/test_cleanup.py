"""What has expired goes by itself, and a cleanup can be asked for."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import asyncpg
import pytest

from producer.api.users import UsersFile
from producer.outcome import Outcomes
from sandbox.process import eventually
from schemas.environment import PART_PREFIX
from schemas.events import output_id
from tests import programs
from tests.e2e.api_client import PASSWORD, ApiClient
from tests.e2e.conftest import StartWorker
from tests.e2e.product_process import ApiProcess, basics
from tests.e2e.watched_oss import WatchedOss
from tests.e2e.wire import EXPIRED, USER, Wire, event
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.real

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

TABLES: Final = ("job_outputs", "job_failures", "job_cleanup")
REMOVED = 'image_uploads_cleanup_removed_total{task="expired"} 1.0'
SUCCEEDED = 'image_uploads_cleanup_runs_total{outcome="succeeded"}'


async def test_an_output_goes_with_the_next_tick_after_its_time_and_stays_gone(
    start_worker: StartWorker,
    wire: Wire,
    database: Database,
    http: aiohttp.ClientSession,
    image_url: str,
    amqp_url: str,
) -> None:
    worker = start_worker(CLEANUP_INTERVAL_S="1")
    await asyncio.to_thread(worker.await_ready)
    expires_at = datetime.now(UTC) + timedelta(seconds=3)
    published = event(image_url, expires_at=expires_at)
    await wire.publish(published)
    stored = (await wire.completion(published)).data["imageUrl"]
    news = (await wire.hears(EXPIRED))[0]
    assert news.data["outputId"] == str(output_id(published.source, published.id))
    assert datetime.fromisoformat(news.data["expiredAt"]) == expires_at < datetime.now(UTC)
    assert await asyncio.to_thread(eventually, lambda: REMOVED in worker.get("/metrics")[1], 30)
    assert await database.fetchval('SELECT "deletedAt" FROM job_outputs') is not None
    async with http.get(stored) as response:
        assert response.status == 404

    async with Outcomes(amqp_url) as outcomes:
        with outcomes.of(published) as outcome:
            await wire.publish(published)
            assert (await asyncio.wait_for(outcome, 30)).body() == news.body
    assert await database.fetchval("SELECT count(*) FROM job_outputs") == 1

    def runs() -> float:
        lines = [line for line in worker.get("/metrics")[1].splitlines() if line.startswith(SUCCEEDED)]
        return float(lines[0].split()[-1])

    so_far = runs()
    assert await asyncio.to_thread(eventually, lambda: runs() > so_far + 1, 30)  # the next one may have begun before
    assert REMOVED in worker.get("/metrics")[1], "what is gone goes once"


async def test_a_file_stays_young_while_its_event_is_in_work(
    start_worker: StartWorker, wire: Wire, oss: WatchedOss, temp_dir: Path, png: bytes
) -> None:
    file = temp_dir / "fox.png"
    file.write_bytes(png)
    async with Proxy(oss.url) as proxy:
        worker = start_worker(OSS_ENDPOINT=proxy.url(), TEMP_MAX_AGE_S="1")
        await asyncio.to_thread(worker.await_ready)
        proxy.freeze()
        published = event(file.as_uri())
        await wire.publish(published)
        changes = {file.stat().st_ctime_ns}

        def has_changed_often() -> bool:
            changes.add(file.stat().st_ctime_ns)
            return len(changes) > 3  # by being taken once, and touched then

        assert await asyncio.to_thread(eventually, has_changed_often, 30)
        proxy.thaw()
        await wire.completion(published)


async def test_a_rehearsal_changes_nothing_and_counts_what_the_run_after_it_removes(
    start_worker: StartWorker,
    wire: Wire,
    database: Database,
    image_url: str,
    http: aiohttp.ClientSession,
    temp_dir: Path,
    amqp_url: str,
    tmp_path: Path,
) -> None:
    worker = start_worker(CLEANUP_INTERVAL_S="0", ORPHAN_GRACE_S="0", TEMP_MAX_AGE_S="1")
    await asyncio.to_thread(worker.await_ready)
    outputs = {name: event(image_url, job_id=name) for name in ("kept", "over", "orphan")}
    for published in outputs.values():
        await wire.publish(published)
    stored = {name: (await wire.completion(published)).data for name, published in outputs.items()}
    half, done, abandoned = (temp_dir / name for name in (f"{PART_PREFIX}half", "done.png", "abandoned.png"))
    for file in (half, done, abandoned):
        file.write_bytes(b"pixels")
    # As if a restore had lost a row, and a crash had left a file.
    await database.execute("""DELETE FROM job_outputs WHERE "jobId" = 'orphan'""")
    await database.execute("""UPDATE job_outputs SET "expiresAt" = now() WHERE "jobId" = 'over'""")
    left = """UPDATE job_outputs SET "sourceFile" = $1, "createdAt" = clock_timestamp() WHERE "jobId" = 'kept'"""
    await database.execute(left, str(done))
    old = time.time() + 1.1  # nobody can make a file that is older than it is
    assert await asyncio.to_thread(eventually, lambda: time.time() > old, 30)

    async def objects() -> set[str]:
        return {name for name, data in stored.items() if (await http.head(data["imageUrl"])).status == HTTPStatus.OK}

    def files() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in temp_dir.iterdir()}

    async def everything() -> list[object]:
        tables = [await database.fetch(f"SELECT * FROM {table}") for table in TABLES]
        return [*tables, await objects(), files()]

    before = await everything()
    rehearsed = await cleaned(tmp_path, amqp_url, "--dry-run")
    assert await everything() == before
    removed = await cleaned(tmp_path, amqp_url)
    assert (rehearsed["dryRun"], removed["dryRun"]) == (True, False)
    assert rehearsed["tasks"] == removed["tasks"]
    assert {task: (result["count"], result["skipped"]) for task, result in removed["tasks"].items()} == {
        "temp": (2, "second look"),  # the third may be asked for by an event that is nowhere to be seen yet
        "expired": (1, None),
        "orphans": (1, None),
    }
    assert removed["tasks"]["orphans"]["keys"] == [stored["orphan"]["ossKey"]]
    assert list(files()) == [abandoned]
    assert await objects() == {"kept", "orphan"}
    gone = 'SELECT "jobId", "deletedAt" IS NOT NULL FROM job_outputs ORDER BY 1'
    assert [tuple(row) for row in await database.fetch(gone)] == [("kept", False), ("over", True)]


async def cleaned(home: Path, amqp_url: str, *options: str) -> dict[str, Any]:
    """What a cleanup did that an operator asked for; it met with no error."""
    printed = home / "cleanup.json"
    words = ["producer", "cleanup", "--wait", "--json", *options]
    command = programs.start(words, {**basics(home), "AMQP_URL": amqp_url}, home, printed)
    await asyncio.to_thread(command.join, 60)
    assert command.exitcode == 0, printed.read_text()
    done: dict[str, Any] = json.loads(printed.read_text())
    assert done["errors"] == []
    return done


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
