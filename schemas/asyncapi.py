"""The wire in two forms that other languages read: a JSON Schema for each event type, and one AsyncAPI document.

Source: AsyncAPI 3.0.0; AMQP 0-9-1 bindings 0.3.0; JSON Schema draft 2020-12.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import CoreSchema

from schemas import topology
from schemas.events import (
    CONTENT_TYPE,
    EVENTS,
    CleanupCompleted,
    CleanupCompletedData,
    CleanupRequested,
    CleanupRequestedData,
    CleanupTaskResult,
    CloudEvent,
    ImageGenerated,
    ImageGeneratedData,
    ImageOutputExpired,
    ImageOutputExpiredData,
    ImageUploadCompleted,
    ImageUploadCompletedData,
    ImageUploadDelayed,
    ImageUploadDelayedData,
    ImageUploadFailed,
    ImageUploadFailedData,
)
from schemas.reasons import Reason

Json = dict[str, Any]
Event = type[CloudEvent[Any]]

CONTRACT_VERSION: Final = "1.0.0"
"""Of the wire, not of the program: a field that is added raises the middle number."""

_RECEIVED: Final[tuple[Event, ...]] = (ImageGenerated, CleanupRequested)
_BINDINGS: Final = "0.3.0"  # the latest that the parser knows
_PERSISTENT: Final = 2
_WHEN: Final = datetime(2026, 11, 22, 13, 18, 41, 123_000, tzinfo=UTC)
_LATER: Final = datetime(2026, 11, 22, 13, 18, 42, tzinfo=UTC)


def exported() -> Mapping[str, str]:
    """The text of every exported file by its name."""
    schemas = {f"{event.TYPE}.schema.json": _json_schema(event) for event in EVENTS}
    return {name: _text(content) for name, content in {**schemas, "asyncapi.json": _asyncapi()}.items()}


def _text(content: Json) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


class _Schema(GenerateJsonSchema):
    """Without titles that only repeat the fields' names."""

    def field_title_should_be_set(self, schema: CoreSchema) -> bool:
        del schema
        return False


def _json_schema(event: Event) -> Json:
    return {"$schema": _Schema.schema_dialect, **event.model_json_schema(schema_generator=_Schema)}


def _asyncapi() -> Json:
    _, definitions = models_json_schema(
        [(event, "validation") for event in EVENTS],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schema,
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "image-uploads",
            "version": CONTRACT_VERSION,
            "description": (
                "Turns the images that AI generators announce into durable objects, rows and events.\n\n"
                "Every event is a CloudEvent 1.0 in structured JSON on one topic exchange; its routing key is its type,"
                " its `message_id` the event's `id`. Unknown fields are ignored, and fields are only ever added: a"
                " breaking change is a new type.\n\n"
                "Publish `image.generated` persistent, mandatory and with publisher confirms: once the broker has"
                " confirmed it without returning it, it ends in `image.upload.completed` or `image.upload.failed`."
                " Either may come more than once, every copy with the same `id`."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "contact": {"name": "image-uploads"},
            "tags": [{"name": "images"}, {"name": "cleanup"}],
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "rabbitmq": {
                "host": "localhost:5672",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ 3.10 to 4.3. AMQP_URL names it.",
            }
        },
        "channels": {event.TYPE: _channel(event) for event in EVENTS},
        "operations": {f"{_action(event)}.{event.TYPE}": _operation(event) for event in EVENTS},
        "components": {
            "messages": {event.TYPE: _message(event) for event in EVENTS},
            "schemas": definitions["$defs"],
        },
        "x-rabbitmq-queues": [
            {"name": queue.name, "durable": True, "arguments": dict(queue.arguments), "bindings": list(queue.bindings)}
            for queue in topology.queues(retry_delays_s=())
        ],
    }


def _action(event: Event) -> str:
    return "receive" if event in _RECEIVED else "send"


def _channel(event: Event) -> Json:
    return {
        "address": event.TYPE,
        "summary": _summary(event),
        "messages": {event.TYPE: {"$ref": f"#/components/messages/{event.TYPE}"}},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {
                    "name": topology.EXCHANGE,
                    "type": "topic",
                    "durable": True,
                    "autoDelete": False,
                    "vhost": "/",
                },
                "bindingVersion": _BINDINGS,
            }
        },
    }


def _operation(event: Event) -> Json:
    # What we send is not mandatory: nobody may be listening, and its record is a row.
    delivery = {"mandatory": True, "ack": True} if event in _RECEIVED else {}
    return {
        "action": _action(event),
        "channel": {"$ref": f"#/channels/{event.TYPE}"},
        "messages": [{"$ref": f"#/channels/{event.TYPE}/messages/{event.TYPE}"}],
        "summary": _summary(event),
        "tags": [{"name": "cleanup" if event.TYPE.startswith("cleanup") else "images"}],
        "bindings": {"amqp": {"deliveryMode": _PERSISTENT, **delivery, "bindingVersion": _BINDINGS}},
    }


def _message(event: Event) -> Json:
    return {
        "name": event.TYPE,
        "title": event.__name__,
        "summary": _summary(event),
        "contentType": CONTENT_TYPE,
        **({"correlationId": {"location": "$message.payload#/data/jobId"}} if _names_a_job(event) else {}),
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
        "bindings": {"amqp": {"messageType": event.TYPE, "bindingVersion": _BINDINGS}},
        "examples": [{"name": name, "payload": payload} for name, payload in _examples(event)],
    }


def _names_a_job(event: Event) -> bool:
    return "job_id" in event.model_fields["data"].annotation.model_fields  # type: ignore[union-attr]  # always a model


def _summary(event: Event) -> str:
    return str(event.__doc__).splitlines()[0]


def _examples(event: Event) -> Iterator[tuple[str, Json]]:
    for example in EXAMPLES:
        if isinstance(example, event):
            yield event.TYPE, example.model_dump(mode="json", by_alias=True)


_CAUSE: Final = {"cause_id": "0c5e7a52-8f0e-4d29-9d3c-2f6f0f6a1c11", "cause_source": "/generators/sdxl-3"}
_JOB: Final = {"job_id": "abc123", "user_id": "test@factory-buy.com"}
_KEY: Final = "users/test@factory-buy.com/jobs/abc123/image-1795353521123-1f3a9c02d4e5b677.png"

EXAMPLES: Final[Sequence[CloudEvent[Any]]] = (
    ImageGenerated(
        id=_CAUSE["cause_id"],
        source=_CAUSE["cause_source"],
        time=_WHEN,
        data=ImageGeneratedData(
            job_id=_JOB["job_id"],
            user_id=_JOB["user_id"],
            image_url="https://cdn.example.com/fox.png",
            prompt="a red fox",
            metadata={"model": "sdxl"},
        ),
    ),
    ImageUploadCompleted(
        id="f1b9a5e0-6a53-5d0d-9c0a-8c2f5a9b7d10",
        time=_LATER,
        data=ImageUploadCompletedData(
            output_id=UUID("5f0b7d8e-3a52-5c1b-8a57-1d3a8c6be0a4"),
            **_CAUSE,
            **_JOB,
            image_url=f"https://your-bucket.oss-cn-hangzhou.aliyuncs.com/{_KEY}",
            oss_bucket="your-bucket",
            oss_key=_KEY,
            content_type="image/png",
            size_bytes=102_400,
            width=1024,
            height=1024,
            crc64="9548687815775124833",
            prompt="a red fox",
            metadata={"model": "sdxl"},
            created_at=_LATER,
            expires_at=None,
        ),
    ),
    ImageUploadFailed(
        id="a7b1de7c-2d36-5f4e-bb9a-07a1a4d1c5f2",
        time=_LATER,
        data=ImageUploadFailedData(
            **_CAUSE,
            **_JOB,
            reason=Reason.SOURCE_GONE,
            detail="cdn.example.com answered 404 three times",
            attempts=3,
            failed_at=_LATER,
        ),
    ),
    ImageUploadDelayed(
        id="3d1c9f0a-71ab-5b9c-a5de-6f0f3f0c7be4",
        time=_LATER,
        data=ImageUploadDelayedData(
            **_CAUSE, **_JOB, reason=Reason.SOURCE_UNAVAILABLE, attempt=1, held=False, next_try_at=_LATER
        ),
    ),
    CleanupRequested(
        id="cleanup-2026-11-22",
        source="/operators/ops-1",
        time=_WHEN,
        data=CleanupRequestedData(tasks=("temp", "orphans"), dry_run=True),
    ),
    CleanupCompleted(
        id="c0a1b6de-6a0f-5a8e-8f51-54c5b0f0a9d3",
        time=_LATER,
        data=CleanupCompletedData(
            cause_id="cleanup-2026-11-22",
            tasks={"temp": CleanupTaskResult(count=2, bytes=204_800), "orphans": CleanupTaskResult(count=0, bytes=0)},
            duration_s=0.25,
            dry_run=True,
            errors=(),
        ),
    ),
    ImageOutputExpired(
        id="91f2b5c4-0c7d-5e3a-9a6b-2b8d1e4f6a70",
        time=_LATER,
        data=ImageOutputExpiredData(
            output_id=UUID("5f0b7d8e-3a52-5c1b-8a57-1d3a8c6be0a4"), **_JOB, oss_key=_KEY, expired_at=_LATER
        ),
    ),
)
"""One event of each type, as it may go over the wire."""
