"""Events and rows as tests need them: valid, and changed where a test says so."""

import io
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from PIL import Image as Pillow

from consumer.core.records import Cause, Failure, Output
from schemas.events import ImageGenerated, ImageGeneratedData, output_id
from schemas.reasons import Reason


def event(**changes: Any) -> ImageGenerated:
    """An event of its own, with changes to its envelope or its data."""
    data = {"job_id": "abc123", "user_id": "test@factory-buy.com", "image_url": "https://cdn.test/fox.png"}
    envelope = {
        "id": str(uuid4()),
        "source": "/generators/test",
        "time": datetime(2026, 11, 22, 13, 18, 41, 123000, UTC),
    }
    for name, value in changes.items():
        (envelope if name in envelope else data)[name] = value
    return ImageGenerated(**envelope, data=ImageGeneratedData(**data))


def body(**changes: Any) -> bytes:
    """A message's body, with changes to its envelope; a change of `data` is merged; None removes a field."""
    document: dict[str, Any] = json.loads(event().body())
    document["data"] |= changes.pop("data", {})
    document |= changes
    for part in (document, document["data"]):
        for name in [name for name, value in part.items() if value is None]:
            del part[name]
    return json.dumps(document).encode()


def output(of: ImageGenerated, **changes: Any) -> Output:
    """The row that the event would lead to."""
    values: dict[str, Any] = {
        "id": output_id(of.source, of.id),
        "job_id": of.data.job_id,
        "user_id": of.data.user_id,
        "event_source": of.source,
        "event_id": of.id,
        "fingerprint": Cause.of(of).fingerprint,
        "oss_bucket": "bucket",
        "oss_key": f"users/u/jobs/j/{uuid4()}.png",
        "url": "https://cdn.test/x.png",
        "content_type": "image/png",
        "size_bytes": 3,
        "width": 2,
        "height": 1,
        "crc64": "18446744073709551615",
        "prompt": "a red fox",
        "metadata": {"model": "sdxl", "seed": 12345678901234567890, "nested": [1.5, None, "ü"]},
        "created_at": datetime.now(UTC),
        "expires_at": None,
    }
    return Output(**(values | changes))


def failure(of: Cause, **changes: Any) -> Failure:
    """The row that this run of the event would lead to if it failed."""
    values: dict[str, Any] = {
        "id": of.failure_id,
        "event_source": of.source,
        "event_id": of.event_id,
        "fingerprint": of.fingerprint,
        "job_id": of.job_id,
        "user_id": of.user_id,
        "image_url": of.image_url,
        "reason": Reason.NOT_AN_IMAGE,
        "detail": "5 bytes that are no image",
        "attempts": 1,
        "replays": of.replays,
        "failed_at": datetime.now(UTC),
    }
    return Failure(**(values | changes))


def picture(form: str = "PNG", size: tuple[int, int] = (64, 48), *, noise: bool = False) -> bytes:
    """The bytes of a real picture."""
    file = io.BytesIO()
    image = Pillow.effect_noise(size, 90).convert("RGB") if noise else Pillow.new("RGB", size, "firebrick")
    image.save(file, form)
    return file.getvalue()
