"""An event that cannot be stored ends as a row, a failed event and a dead letter; one that can be later, waits."""

import asyncio
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest

from sandbox.oss import Fault, Kind
from schemas import topology
from tests.e2e.conftest import StartWorker
from tests.e2e.image_host import UNAVAILABLE, Answer, ImageHost
from tests.e2e.product_process import WorkerProcess
from tests.e2e.watched_oss import WatchedOss
from tests.e2e.wire import COMPLETED, DELAYED, FAILED, RETRY_DELAYS_S, USER, Wire, event

pytestmark = pytest.mark.real

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HTML = b"<!doctype html><title>not an image</title>"
FAILURES = "SELECT * FROM job_failures ORDER BY number"


async def test_what_is_no_image_fails_at_once_as_a_row_an_event_and_a_dead_letter(
    worker: WorkerProcess, wire: Wire, database: Database, image_host: ImageHost, oss: WatchedOss
) -> None:
    url = image_host.give("fox.png", HTML)
    published = event(f"{url}?token=only-for-the-worker")
    await wire.publish(published)
    failure = await wire.failure(published)
    (letter,) = await wire.dead_letters(1)
    (row,) = await database.fetch(FAILURES)
    assert await asyncio.to_thread(worker.stop) == 0

    assert failure.event["id"] == failure.message.message_id == str(row["id"])
    assert UUID(failure.event["id"]).version == 5
    assert failure.event["source"] == "/image-uploads"
    assert datetime.fromisoformat(failure.event["time"]) == row["failedAt"]
    assert failure.data == {
        "causeId": published.id,
        "causeSource": published.source,
        "jobId": "abc123",
        "userId": USER,
        "reason": "not_an_image",
        "detail": row["detail"],
        "attempts": 1,
        "failedAt": failure.event["time"],
    }
    assert (row["eventSource"], row["eventId"]) == (published.source, published.id)
    assert (row["jobId"], row["userId"], row["imageUrl"]) == ("abc123", USER, url)
    assert (row["reason"], row["attempts"], row["replays"], row["resolvedAt"]) == ("not_an_image", 1, 0, None)

    assert letter.body == published.body()
    assert letter.message_id == published.id
    assert letter.delivery_mode == 2
    assert {name: letter.headers[name] for name in ("x-reason", "x-detail", "x-attempt", "x-replays")} == {
        "x-reason": "not_an_image",
        "x-detail": row["detail"],
        "x-attempt": 1,
        "x-replays": 0,
    }
    assert datetime.fromisoformat(str(letter.headers["x-failed-at"])) == row["failedAt"]
    assert str(worker.pid) in str(letter.headers["x-worker"])

    assert not oss.puts
    assert await database.fetchval("SELECT count(*) FROM job_outputs") == 0
    assert "only-for-the-worker" not in f"{worker.log}{failure.body!r}{dict(row)}{letter.headers}"


async def test_a_body_that_cannot_be_read_is_a_row_and_a_dead_letter_and_no_event(
    worker: WorkerProcess, wire: Wire, database: Database, image_url: str
) -> None:
    await wire.publish_body(b'{"jobId": \xff', message_id="mangled")
    (letter,) = await wire.dead_letters(1)
    await wire.publish(good := event(image_url))
    await wire.completion(good)

    (row,) = await database.fetch(FAILURES)
    assert (row["reason"], row["jobId"], row["eventId"]) == ("undecodable", None, None)
    assert (letter.headers["x-reason"], letter.body) == ("undecodable", b'{"jobId": \xff')
    assert [news.type for news in wire.news] == [COMPLETED]


async def test_another_event_under_the_name_of_a_stored_one_fails_and_leaves_it_alone(
    worker: WorkerProcess, wire: Wire, database: Database, oss: WatchedOss, image_url: str
) -> None:
    await wire.publish(first := event(image_url))
    await wire.completion(first)
    uploaded = oss.puts.copy()
    await wire.publish(event(image_url, "another-job", id=first.id))
    failure = await wire.failure(first)
    (letter,) = await wire.dead_letters(1)

    (row,) = await database.fetch(FAILURES)
    assert failure.data["jobId"] == row["jobId"] == "another-job"
    assert failure.data["reason"] == row["reason"] == letter.headers["x-reason"] == "conflicting_event"
    assert await database.fetchval('SELECT array_agg("jobId") FROM job_outputs') == ["abc123"]
    assert oss.puts == uploaded


async def test_a_source_that_is_away_is_tried_along_the_ladder_until_it_answers_or_the_ladder_ends(
    worker: WorkerProcess, wire: Wire, database: Database, image_host: ImageHost, png: bytes
) -> None:
    recovering = event(image_host.give("recovering.png", UNAVAILABLE, UNAVAILABLE, png), "recovering")
    lost = event(image_host.give("lost.png", UNAVAILABLE), "lost")
    for published in (recovering, lost):
        await wire.publish(published)
    completion, failure = await wire.completion(recovering), await wire.failure(lost)
    (letter,) = await wire.dead_letters(1)
    assert await asyncio.to_thread(worker.stop) == 0

    for published in (recovering, lost):
        hints = [news.data for news in await wire.hears(DELAYED, about=published)]
        assert [(hint["attempt"], hint["held"], hint["reason"]) for hint in hints] == [
            (1, False, "source_unavailable"),
            (2, False, "source_unavailable"),
        ]
    assert completion.data["jobId"] == "recovering"
    assert failure.data["reason"] == "source_unavailable"
    assert failure.data["attempts"] == letter.headers["x-attempt"] == len(RETRY_DELAYS_S) + 1
    assert image_host.requests == {"recovering.png": 3, "lost.png": 3}
    assert await database.fetchval('SELECT array_agg("jobId") FROM job_outputs') == ["recovering"]
    assert [row["attempts"] for row in await database.fetch(FAILURES)] == [3]
    assert await wire.waiting(topology.WORK_QUEUE) == 0


async def test_a_source_that_says_when_to_come_again_chooses_the_rung_on_which_its_event_waits(
    start_worker: StartWorker, wire: Wire, image_host: ImageHost
) -> None:
    worker = start_worker(RETRY_DELAYS_S="1,30,600")
    worker.await_ready()
    busy = Answer(b"come back later", 503, {"Retry-After": "31"})
    await wire.publish(event(image_host.give("busy.png", busy)))
    (hint,) = await wire.hears(DELAYED)
    assert await asyncio.to_thread(worker.stop) == 0

    assert (hint.data["attempt"], hint.data["held"]) == (1, False)
    waiting = {delay_s: await wire.waiting(topology.rung_queue(delay_s)) for delay_s in (1, 30, 600)}
    assert waiting == {1: 0, 30: 0, 600: 1}
    assert image_host.requests == {"busy.png": 1}


async def test_while_oss_refuses_everybody_an_event_is_held_without_counting_and_stored_afterwards(
    worker: WorkerProcess, wire: Wire, database: Database, oss: WatchedOss, image_url: str
) -> None:
    oss.faults.add(Fault(Kind.DENY, method="PUT"))
    await wire.publish(published := event(image_url))
    hints = await wire.hears(DELAYED, about=published)
    oss.faults.clear()
    await wire.completion(published)
    assert await asyncio.to_thread(worker.stop) == 0

    assert {(hint.data["attempt"], hint.data["held"], hint.data["reason"]) for hint in hints} == {
        (1, True, "storage_refused")
    }
    assert [line["attempt"] for line in worker.lines("stored")] == [1]
    assert not [news for news in wire.news if news.type == FAILED]
    assert await database.fetchval("SELECT count(*) FROM job_failures") == 0
