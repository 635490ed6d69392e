"""One event in: one object, one row and one completion out."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import aiohttp
import asyncpg
import fastcrc
import pytest
from yarl import URL

from sandbox.samples import picture
from schemas.events import ImageGenerated
from tests.e2e.image_host import GONE, Answer, ImageHost
from tests.e2e.product_process import WorkerProcess
from tests.e2e.watched_oss import WatchedOss
from tests.e2e.wire import COMPLETED, USER, News, Wire, event

pytestmark = pytest.mark.real

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

LATEST = 'SELECT * FROM job_outputs ORDER BY "createdAt" DESC LIMIT 1;'
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif"}
SIZE = (96, 64)


def data_url(content: bytes) -> str:
    return f"data:application/octet-stream;base64,{b64encode(content).decode()}"


def milliseconds(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def files_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def row_of(database: Database, published: ImageGenerated) -> Mapping[str, Any]:
    rows = await database.fetch(
        'SELECT * FROM job_outputs WHERE "eventSource" = $1 AND "eventId" = $2', published.source, published.id
    )
    assert len(rows) == 1
    row = dict(rows[0])
    return {**row, "metadata": row["metadata"] and json.loads(row["metadata"])}


async def stored(http: aiohttp.ClientSession, url: str) -> tuple[bytes, Mapping[str, str]]:
    async with http.get(URL(url, encoded=True), raise_for_status=True) as response:
        return await response.read(), response.headers


def check_row(row: Mapping[str, Any], published: ImageGenerated, content: bytes, form: str, oss: WatchedOss) -> None:
    data, extension = published.data, FORMATS[form]
    prefix = f"users/{USER}/jobs/{data.job_id}/image-{milliseconds(published.time)}-"
    h16 = row["ossKey"].removeprefix(prefix).removesuffix(f".{extension}")
    assert row["ossKey"] == f"{prefix}{h16}.{extension}"
    assert len(h16) == 16
    assert set(h16) <= set("0123456789abcdef")
    expected = {
        "jobId": data.job_id,
        "userId": USER,
        "eventSource": published.source,
        "eventId": published.id,
        "ossBucket": oss.bucket,
        "url": f"{oss.public_url}/{row['ossKey']}",
        "contentType": f"image/{form.lower()}",
        "sizeBytes": len(content),
        "width": SIZE[0],
        "height": SIZE[1],
        "crc64": str(fastcrc.crc64.xz(content)),
        "prompt": data.prompt,
        "metadata": data.metadata,
        "expiresAt": data.expires_at,
        "deletedAt": None,
    }
    assert {name: row[name] for name in expected} == expected


def check_completion(completion: News, row: Mapping[str, Any]) -> None:
    message, envelope = completion.message, completion.event
    assert message.content_type == "application/cloudevents+json"
    assert message.message_id == envelope["id"]
    assert message.correlation_id == row["jobId"]
    assert message.delivery_mode == 2
    assert UUID(envelope["id"]).version == 5
    assert (envelope["specversion"], envelope["source"], envelope["type"]) == ("1.0", "/image-uploads", COMPLETED)
    assert datetime.fromisoformat(envelope["time"]) == row["createdAt"]
    times = {"createdAt": row["createdAt"], "expiresAt": row["expiresAt"]}
    assert {name: value for name, value in completion.data.items() if name not in times} == {
        "outputId": str(row["id"]),
        "causeId": row["eventId"],
        "causeSource": row["eventSource"],
        "imageUrl": row["url"],
        **{name: row[name] for name in ("jobId", "userId", "ossBucket", "ossKey", "contentType", "sizeBytes")},
        **{name: row[name] for name in ("width", "height", "crc64", "prompt", "metadata")},
    }
    heard = {name: completion.data[name] for name in times}
    assert {name: time and datetime.fromisoformat(time) for name, time in heard.items()} == times


async def test_an_image_of_any_format_by_any_scheme_becomes_one_identical_object_one_row_and_one_completion(
    worker: WorkerProcess,
    wire: Wire,
    database: Database,
    http: aiohttp.ClientSession,
    image_host: ImageHost,
    oss: WatchedOss,
    temp_dir: Path,
) -> None:
    contents = {form: picture(form, SIZE) for form in FORMATS}
    published: list[tuple[str, ImageGenerated]] = []
    for form, content in contents.items():
        file = temp_dir / f"{form}.bin"
        file.write_bytes(content)
        lying = Answer(content, headers={"Content-Type": "text/html"})
        for url in (image_host.give(f"{form}.tiff", lying), file.as_uri(), data_url(content)):
            published.append((form, event(url, f"job-{len(published)}")))
    for _, each in published:
        await wire.publish(each)
    completions = [await wire.completion(each) for _, each in published]
    assert await asyncio.to_thread(worker.stop) == 0

    for (form, each), completion in zip(published, completions, strict=True):
        row = await row_of(database, each)
        check_row(row, each, contents[form], form, oss)
        check_completion(completion, row)
        body, headers = await stored(http, completion.data["imageUrl"])
        assert body == contents[form]
        assert headers["Content-Type"] == f"image/{form.lower()}"
        assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert headers["x-oss-meta-event-id"] == each.id
    assert await database.fetchval("SELECT count(*) FROM job_outputs") == len(published)
    assert await database.fetchval("SELECT count(*) FROM job_failures") == 0
    assert len(wire.news) == len(published)
    assert files_in(temp_dir) == []


async def test_prompt_metadata_and_expiry_are_carried_and_the_users_query_shows_the_latest_output(
    worker: WorkerProcess, wire: Wire, database: Database, image_url: str
) -> None:
    await wire.publish(earlier := event(image_url, "earlier"))
    await wire.completion(earlier)
    latest = event(
        image_url,
        "latest",
        prompt="a red fox, 赤い狐 🦊",
        metadata={"model": "sdxl", "seed": 7, "nested": {"ü": [1.5, None, True]}},
        expires_at="2126-01-31T01:00:00+01:00",
    )
    await wire.publish(latest)
    completion = await wire.completion(latest)

    row = await database.fetchrow(LATEST)
    assert row is not None
    assert (row["jobId"], row["prompt"]) == ("latest", latest.data.prompt)
    assert json.loads(row["metadata"]) == latest.data.metadata
    assert row["expiresAt"] == datetime(2126, 1, 31, tzinfo=UTC)
    assert completion.data["prompt"] == latest.data.prompt
    assert completion.data["metadata"] == latest.data.metadata
    assert datetime.fromisoformat(completion.data["expiresAt"]) == row["expiresAt"]


async def test_an_event_that_is_published_again_and_again_is_one_object_one_row_and_equal_completions(
    worker: WorkerProcess, wire: Wire, database: Database, image_host: ImageHost, oss: WatchedOss, png: bytes
) -> None:
    published = event(image_host.give("fox.png", png))
    await asyncio.gather(wire.publish(published), wire.publish(published))
    await wire.hears(COMPLETED, 2, about=published)

    image_host.give("fox.png", GONE)
    fetched, uploaded = image_host.requests.copy(), oss.puts.copy()
    await wire.publish(published)
    completions = await wire.hears(COMPLETED, 3, about=published)
    assert await asyncio.to_thread(worker.stop) == 0

    assert len({news.body for news in completions}) == 1
    assert {news.message.message_id for news in completions} == {completions[0].event["id"]}
    assert image_host.requests == fetched
    assert oss.puts == uploaded
    assert list(oss.puts) == [(await row_of(database, published))["ossKey"]]
    assert await database.fetchval("SELECT count(*) FROM job_outputs") == 1


async def test_two_events_of_one_job_in_one_millisecond_with_the_same_bytes_are_two_objects(
    worker: WorkerProcess, wire: Wire, database: Database, oss: WatchedOss, image_url: str
) -> None:
    moment = "2026-11-22T13:18:41.123Z"
    twins = [event(image_url, time=moment), event(image_url, time=moment)]
    for twin in twins:
        await wire.publish(twin)
    keys = {(await wire.completion(twin)).data["ossKey"] for twin in twins}

    assert len(keys) == 2
    assert set(oss.puts) == keys
    assert {(await row_of(database, twin))["ossKey"] for twin in twins} == keys
