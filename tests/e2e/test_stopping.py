"""However a worker ends, every event is stored once."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from sandbox.process import eventually
from schemas import topology
from tests.e2e.conftest import StartWorker
from tests.e2e.image_host import ImageHost
from tests.e2e.watched_oss import WatchedOss
from tests.e2e.wire import COMPLETED, FAILED, Wire, event
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.real

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

DETACHED = "image_uploads_consumer_attached 0.0"
MANY = 120
PREFETCH = 16
DRAIN_S = 2
SLACK_S = 1.5
SHARE = PREFETCH // 4  # of a host that has not answered yet; the others wait for its first answer


def files_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_on_sigterm_a_worker_finishes_what_it_has_begun_and_nothing_is_done_twice(
    start_worker: StartWorker, wire: Wire, database: Database, oss: WatchedOss, image_host: ImageHost, png: bytes
) -> None:
    first = start_worker(fresh=True, PREFETCH=str(PREFETCH))
    await asyncio.to_thread(first.await_ready)
    image_host.hold()
    published = [event(image_host.give(f"{number}.png", png), f"job-{number}") for number in range(MANY)]
    await asyncio.gather(*map(wire.publish, published))
    assert await asyncio.to_thread(eventually, lambda: image_host.requests.total() == SHARE, 30)
    first.terminate()
    assert await asyncio.to_thread(eventually, lambda: DETACHED in first.get("/metrics")[1], 30)
    image_host.release()
    assert await asyncio.to_thread(first.await_end) == 0

    await wire.hears(COMPLETED, PREFETCH)
    begun = await database.fetchval("SELECT count(*) FROM job_outputs")
    assert begun in (PREFETCH, PREFETCH + 1)  # the one that came alone after the start is not counted by the broker
    assert await wire.waiting(topology.WORK_QUEUE) == MANY - begun

    second = start_worker()
    await asyncio.to_thread(second.await_ready)
    completions = await wire.hears(COMPLETED, MANY)
    assert await asyncio.to_thread(second.stop) == 0
    assert Counter(news.data["causeId"] for news in completions) == {each.id: 1 for each in published}
    assert len(wire.news) == MANY
    assert oss.puts == {news.data["ossKey"]: 1 for news in completions}
    assert set(image_host.requests.values()) == {1}
    assert await database.fetchval("SELECT count(*) FROM job_outputs") == MANY


async def test_a_drain_that_takes_too_long_is_given_up_and_its_event_comes_again(
    start_worker: StartWorker, wire: Wire, image_host: ImageHost, png: bytes
) -> None:
    first = start_worker(DRAIN_TIMEOUT_S="0.2")
    await asyncio.to_thread(first.await_ready)
    image_host.hold()
    published = event(image_host.give("fox.png", png), "job")
    await wire.publish(published)
    assert await asyncio.to_thread(eventually, lambda: image_host.requests.total() == 1, 30)
    assert await asyncio.to_thread(first.stop) == 1
    assert first.lines("stopped with deliveries in work; they come again")

    image_host.release()
    second = start_worker()
    await asyncio.to_thread(second.await_ready)
    await wire.completion(published)
    assert await asyncio.to_thread(second.stop) == 0


@pytest.mark.parametrize("link", ["AMQP_URL", "DATABASE_URL"])
@pytest.mark.parametrize("is_busy", [True, False])
async def test_a_server_that_falls_silent_does_not_hold_up_a_stop(
    link: str,
    is_busy: bool,  # noqa: FBT001 pytest gives parameters by name
    settings: dict[str, str],
    start_worker: StartWorker,
    wire: Wire,
    image_host: ImageHost,
    png: bytes,
) -> None:
    published = event(image_host.give("fox.png", png), "job")
    async with Proxy(settings[link]) as proxy:
        first = start_worker(DRAIN_TIMEOUT_S=str(DRAIN_S), **{link: proxy.url()})
        await asyncio.to_thread(first.await_ready)
        if is_busy:
            image_host.hold()
            await wire.publish(published)
            assert await asyncio.to_thread(eventually, lambda: image_host.requests.total() == 1, 30)
        proxy.freeze()
        image_host.release()
        began = time.monotonic()
        assert await asyncio.to_thread(first.stop) == (1 if is_busy else 0)
        assert time.monotonic() - began < DRAIN_S + SLACK_S

    if is_busy:
        second = start_worker()
        await asyncio.to_thread(second.await_ready)
        await wire.completion(published)


async def test_after_sigkill_another_worker_finishes_and_each_event_is_one_row_and_one_object(
    start_worker: StartWorker,
    wire: Wire,
    database: Database,
    oss: WatchedOss,
    image_host: ImageHost,
    temp_dir: Path,
    png: bytes,
) -> None:
    first = start_worker()
    await asyncio.to_thread(first.await_ready)
    image_host.hold()
    sources = []
    for number in range(MANY):  # every other one is held, so that the first worker cannot finish
        sources.append(image_host.give(f"{number}.png", png))
        file = temp_dir / f"{number}.png"
        file.write_bytes(png)
        sources.append(file.as_uri())
    published = [event(url, f"job-{number}") for number, url in enumerate(sources)]
    publishing = asyncio.gather(*map(wire.publish, published))
    await wire.hears(COMPLETED, PREFETCH)
    first.kill()
    image_host.release()
    await publishing

    second = start_worker()
    await asyncio.to_thread(second.await_ready)
    for each in published:
        await wire.completion(each)
    assert await asyncio.to_thread(second.stop) == 0

    assert not [news for news in wire.news if news.type == FAILED]
    completions = [news for news in wire.news if news.type == COMPLETED]
    heard = {(news.data["causeId"], news.event["id"], news.data["ossKey"]) for news in completions}
    assert len(heard) == 2 * MANY
    rows = await database.fetch('SELECT "eventId", "ossKey" FROM job_outputs')
    assert len(rows) == 2 * MANY
    assert {(row["eventId"], row["ossKey"]) for row in rows} == {(cause, key) for cause, _, key in heard}
    assert set(oss.puts) == {row["ossKey"] for row in rows}
    assert files_in(temp_dir) == []
    assert await wire.waiting(topology.WORK_QUEUE) == 0
    assert await wire.waiting(topology.DEAD_QUEUE) == 0
