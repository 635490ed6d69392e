"""From a message's bytes to an event, or to a refusal that still knows what the message names."""

import json
from contextlib import suppress
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from consumer.core.errors import PermanentError
from consumer.core.records import Cause, fingerprint
from schemas.events import CONTENT_TYPE, MAX_BODY_BYTES, EventId, EventSource, ImageGenerated, JobId, UserId
from schemas.reasons import Reason

_CONTENT_TYPES: Final = (CONTENT_TYPE, "application/json")
_MAX_READ_BYTES: Final = 4 * MAX_BODY_BYTES  # beyond, reading it for its job alone would stall everybody else
_ID: Final = TypeAdapter[str](EventId)
_SOURCE: Final = TypeAdapter[str](EventSource)
_JOB_ID: Final = TypeAdapter[str](JobId)
_USER_ID: Final = TypeAdapter[str](UserId)


class EventRefusedError(PermanentError):
    """The message is no event that we handle; `cause` has what could be read of it."""

    def __init__(self, reason: Reason, detail: str, cause: Cause) -> None:
        super().__init__(reason, detail)
        self.cause = cause


def decode(body: bytes, *, content_type: str | None, message_id: str, replays: int = 0) -> ImageGenerated:
    """The event in `body`, valid in every field.

    Raises:
        EventRefusedError: the message is too large, not JSON, of another type, or has a wrong field.
    """
    unnamed = Cause(fingerprint=fingerprint(message_id.encode(), body), replays=replays)
    if len(body) > MAX_BODY_BYTES:
        detail = f"the event has {len(body)} bytes; at most {MAX_BODY_BYTES} are allowed"
        raise EventRefusedError(Reason.TOO_LARGE, detail, _read(body, unnamed))
    if content_type and content_type.partition(";")[0].strip().lower() not in _CONTENT_TYPES:
        detail = f"content type {content_type[:100]!r} is none of {', '.join(_CONTENT_TYPES)}"
        raise EventRefusedError(Reason.UNSUPPORTED_EVENT, detail, _read(body, unnamed))
    try:
        event = ImageGenerated.model_validate_json(body, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _refusal(body, error, unnamed) from None
    if missing := {"specversion", "type"} - event.model_fields_set:
        detail = f"{', '.join(sorted(missing))}: field required"
        raise EventRefusedError(Reason.INVALID_EVENT, detail, Cause.of(event, replays))
    return event


def _read(body: bytes, unnamed: Cause) -> Cause:
    if len(body) <= _MAX_READ_BYTES:
        with suppress(ValueError, RecursionError):
            document = json.loads(body)
            return _salvage(document, unnamed) if isinstance(document, dict) else unnamed
    return unnamed


def _refusal(body: bytes, error: ValidationError, unnamed: Cause) -> EventRefusedError:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as not_json:
        return EventRefusedError(Reason.UNDECODABLE, f"the body is not JSON: {not_json}", unnamed)
    if not isinstance(document, dict):
        return EventRefusedError(Reason.INVALID_EVENT, "the body is not a JSON object", unnamed)
    cause = _salvage(document, unnamed)
    for name, supported in (("specversion", "1.0"), ("type", ImageGenerated.TYPE)):
        if isinstance(value := document.get(name), str) and value != supported:
            detail = f"{name} {value[:100]!r} is not {supported!r}"
            return EventRefusedError(Reason.UNSUPPORTED_EVENT, detail, cause)
    return EventRefusedError(Reason.INVALID_EVENT, _fields(error), cause)


def _fields(error: ValidationError) -> str:
    details = error.errors(include_input=False, include_url=False)
    return "; ".join(
        f"{'.'.join(map(str, detail['loc'])) or 'event'}: {detail['msg'].removeprefix('Value error, ')}"
        for detail in details
    )


def _salvage(document: dict[str, Any], unnamed: Cause) -> Cause:
    data = document.get("data")
    data = data if isinstance(data, dict) else {}
    image_url = data.get("imageUrl")
    return unnamed.naming(
        source=_valid(_SOURCE, document.get("source")),
        event_id=_valid(_ID, document.get("id")),
        job_id=_valid(_JOB_ID, data.get("jobId")),
        user_id=_valid(_USER_ID, data.get("userId")),
        image_url=image_url if isinstance(image_url, str) and image_url.isprintable() else None,
    )


def _valid(kind: TypeAdapter[str], value: object) -> str | None:
    with suppress(ValidationError, ValueError):
        return kind.validate_python(value)
    return None
