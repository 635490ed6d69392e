"""The job that both peers do: fetch an image, upload it, insert its row, say so. Plain code, shared by all variants.

It is as generous to them as can be: keys are derived from the event, so a second try overwrites its object, and every
try has a connection of its own to the database, so a restart of it breaks only the tries that it interrupts.
"""

import base64
import io
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_URL, uuid4, uuid5

import oss2
import psycopg
import requests
from oss2.credentials import StaticCredentialsProvider
from PIL import Image

EXCHANGE = "images"
COMPLETED = "image.upload.completed"
FAULTS_OF_THE_WORLD = (requests.RequestException, oss2.exceptions.OssError, psycopg.OperationalError)
"""What may go better next time: the net, the store, the database."""

_TIMEOUT_S = 10
_COLUMNS = '(id, "jobId", "userId", "eventSource", "eventId", "ossKey", "contentType", "sizeBytes", width, height)'
_INSERT = f"INSERT INTO job_outputs {_COLUMNS} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"

_bucket = oss2.Bucket(
    oss2.ProviderAuthV4(StaticCredentialsProvider(os.environ["OSS_ACCESS_KEY"], os.environ["OSS_SECRET"])),
    os.environ["OSS_ENDPOINT"],
    os.environ["OSS_BUCKET"],
    region=os.environ["OSS_REGION"],
    connect_timeout=_TIMEOUT_S,
)


@dataclass(frozen=True)
class Picture:
    """An image that was opened."""

    content: bytes
    form: str
    width: int
    height: int


def store(event: dict[str, Any], *, once: bool) -> dict[str, Any]:
    """The image is in the bucket and has a row; returns the event that says so.

    Args:
        event: An `image.generated`.
        once: Whether a second try finds the row of the first one, as idempotence asks for.
    """
    data = event["data"]
    picture = _opened(_fetched(data["imageUrl"]))
    key = f"users/{data['userId']}/jobs/{data['jobId']}/{event['id']}.{picture.form}"
    _bucket.put_object(key, picture.content, headers={"Content-Type": f"image/{picture.form}"})
    name = f"{event['source']}|{event['id']}"
    output_id = uuid5(NAMESPACE_URL, name) if once else uuid4()
    row = (
        output_id,
        data["jobId"],
        data["userId"],
        event["source"],
        event["id"],
        key,
        f"image/{picture.form}",
        len(picture.content),
        picture.width,
        picture.height,
    )
    with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=_TIMEOUT_S) as connection:
        connection.execute(_INSERT + (" ON CONFLICT DO NOTHING" if once else ""), row)
    return {
        "specversion": "1.0",
        "id": str(uuid5(NAMESPACE_URL, f"completed|{name}") if once else uuid4()),
        "source": "/peer",
        "type": COMPLETED,
        "time": datetime.now(UTC).isoformat(),
        "data": {
            "outputId": str(output_id),
            "causeId": event["id"],
            "causeSource": event["source"],
            "jobId": data["jobId"],
            "userId": data["userId"],
            "ossKey": key,
        },
    }


def discard(event: dict[str, Any]) -> None:
    """The file of a `file:` event is gone."""
    url = event["data"]["imageUrl"]
    if url.startswith("file:"):
        _path(url).unlink(missing_ok=True)


def _fetched(url: str) -> bytes:
    match urlsplit(url).scheme:
        case "data":
            return base64.b64decode(url.partition(",")[2])
        case "file":
            return _path(url).read_bytes()
        case _:
            response = requests.get(url, timeout=_TIMEOUT_S)
            response.raise_for_status()
            return response.content


def _opened(content: bytes) -> Picture:
    image = Image.open(io.BytesIO(content))
    return Picture(content, (image.format or "").lower(), image.width, image.height)


def _path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))
