"""CloudEvents 1.0 in structured JSON: the envelope, and the payload of every event type.

Field names on the wire are camelCase; in Python they are snake_case. Unknown fields are ignored and fields are
only ever added: a breaking change is a new type.
Source: CloudEvents 1.0.2, section "Context Attributes"; CloudEvents JSON format 1.0.2, section 3.
"""

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, Self, TypeAlias, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from schemas.reasons import Reason

CONTENT_TYPE: Final = "application/cloudevents+json"
OUR_SOURCE: Final = "/image-uploads"
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_METADATA_BYTES: Final = 8 * 1024

# Frozen: every id that this product derives hangs on it.
_ID_NAMESPACE: Final = uuid.UUID("6f0c2f5e-9d0b-5a0c-8f57-1d3a8c6be0a4")
_JOB_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_USER_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._@+|:-]{0,253}$"
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def derive_id(*parts: str) -> uuid.UUID:
    """The UUIDv5 of `parts`: the same for the same parts, for ever, in every worker."""
    return uuid.uuid5(_ID_NAMESPACE, "\0".join(parts))


def output_id(source: str, event_id: str) -> uuid.UUID:
    """Id of the row in `job_outputs` that an `image.generated` event leads to."""
    return derive_id("job_outputs", source, event_id)


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def _at_most_bytes(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if len(text.encode()) > limit:
            raise ValueError(f"is longer than {limit} bytes")
        return text

    return AfterValidator(check)


def _no_parent(text: str) -> str:
    if ".." in text:
        raise ValueError("holds '..'")
    return text


def _digits(value: object) -> object:
    # Generators that number their jobs send a JSON number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _rfc3339(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise ValueError("is no RFC 3339 date and time with an offset")


def _after_1970(time: datetime) -> datetime:
    if time < EPOCH:
        raise ValueError("is before 1970")
    try:
        return time.astimezone(UTC)
    except OverflowError:  # the last hours of 9999, west of Greenwich
        raise ValueError("is after 9999") from None


def _wire_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _image_url(url: str) -> str:
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("holds white space or a control character")
    scheme = url.partition(":")[0].lower()
    if scheme not in ("https", "http", "file", "data"):
        raise ValueError("is none of https:, http:, file: and data:")
    try:
        parts = urlsplit(url)
    except ValueError:  # its words repeat what it was given, password and all
        raise ValueError("is no valid URL") from None
    if scheme in ("https", "http") and not parts.hostname:
        raise ValueError("names no host")
    if scheme == "file" and parts.netloc not in ("", "localhost"):
        raise ValueError("names a host; a file: URL is file:///path")
    return url


def _holds_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_holds_nul(part) for pair in value.items() for part in pair)
        case list() | tuple():
            return any(_holds_nul(part) for part in value)
        case _:
            return False


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, RecursionError):
        raise ValueError("holds what JSON cannot") from None
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise ValueError(f"is longer than {MAX_METADATA_BYTES} bytes as JSON")
    if "\\u0000" in text and _holds_nul(value):
        raise ValueError("holds a NUL character")
    return value


def _string_or_digits(pattern: str) -> WithJsonSchema:
    string = {"type": "string", "pattern": pattern, "not": {"pattern": r"\.\."}}
    return WithJsonSchema({"anyOf": [string, {"type": "integer", "minimum": 0}]})


Text = Annotated[str, AfterValidator(_no_nul)]
Word = Annotated[str, StringConstraints(min_length=1), AfterValidator(_no_nul)]
# JSON Schema counts characters, we count bytes: its limits are necessary, not sufficient.
EventId = Annotated[Word, Field(json_schema_extra={"maxLength": 255}), _at_most_bytes(255)]
EventSource = Annotated[Word, Field(json_schema_extra={"maxLength": 512}), _at_most_bytes(512)]
JobId = Annotated[
    str,
    BeforeValidator(_digits),
    StringConstraints(pattern=_JOB_ID),
    AfterValidator(_no_parent),
    _string_or_digits(_JOB_ID),
]
UserId = Annotated[
    str,
    BeforeValidator(_digits),
    StringConstraints(pattern=_USER_ID),
    AfterValidator(_no_parent),
    _string_or_digits(_USER_ID),
]
Time = Annotated[
    AwareDatetime,
    BeforeValidator(_rfc3339),
    AfterValidator(_after_1970),
    PlainSerializer(_wire_time, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
ImageUrl = Annotated[
    Word,
    Field(json_schema_extra={"pattern": r"^([Hh][Tt][Tt][Pp][Ss]?|[Ff][Ii][Ll][Ee]|[Dd][Aa][Tt][Aa]):\S*$"}),
    AfterValidator(_image_url),
]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]


class _Wire(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,  # what is said here is said in the exported JSON Schemas
    )


class ImageGeneratedData(_Wire):
    """An image that a generator has made, and where it is to be fetched from."""

    job_id: JobId
    """The generation job; a number is taken as its digits. No `..`."""
    user_id: UserId
    """Whose image it is; a number is taken as its digits. No `..`."""
    image_url: ImageUrl
    """Where the image is: `https:` or `http:`; `file:`, a path inside TEMP_DIR, one file per event, deleted once
    the event is stored or discarded; or `data:` in base64, for small images."""
    prompt: Text | None = None
    """What the image was generated from. No NUL."""
    metadata: Metadata | None = None
    """Anything, kept with the output: at most 8192 bytes as compact JSON in UTF-8. No NUL."""
    expires_at: Time | None = None
    """When the output may be deleted; later than the event's `time`."""


class ImageUploadCompletedData(_Wire):
    """A stored image: its row in `job_outputs`, and where to get it."""

    output_id: uuid.UUID
    """The row's `id`."""
    cause_id: str
    """The `id` of the `image.generated` event."""
    cause_source: str
    """The `source` of the `image.generated` event."""
    job_id: str
    user_id: str
    image_url: str
    """Where the stored object is; presigned, and so of limited life, where the bucket is private."""
    oss_bucket: str
    oss_key: str
    content_type: str
    """The media type of the decoded image, such as `image/png`."""
    size_bytes: int
    width: int
    """In pixels."""
    height: int
    """In pixels."""
    crc64: str
    """CRC-64/XZ of the object, an unsigned decimal number: what OSS calls `x-oss-hash-crc64ecma`."""
    prompt: str | None
    metadata: dict[str, Any] | None
    created_at: Time
    """When the row was written."""
    expires_at: Time | None
    """When the object may be deleted; null: never."""


class ImageUploadFailedData(_Wire):
    """An event that ended without an object; an operator may replay it."""

    cause_id: str | None
    """The `id` of the event that failed; null where it had none that is valid."""
    cause_source: str | None
    """The `source` of the event that failed; null where it had none that is valid."""
    job_id: str
    user_id: str | None
    reason: Reason
    detail: str
    """One line for a human."""
    attempts: int
    """How often it was tried, from 1."""
    failed_at: Time


class ImageUploadDelayedData(_Wire):
    """A hint, with no record behind it, that an event is tried again later."""

    cause_id: str
    cause_source: str
    job_id: str
    user_id: str
    reason: Reason
    attempt: int
    """Which attempt was the last one, from 1."""
    held: bool
    """Whether a dependency of ours is away, so that the attempt does not count."""
    next_try_at: Time


CleanupTask: TypeAlias = Literal["temp", "expired", "orphans"]
CLEANUP_TASKS: Final[tuple[CleanupTask, ...]] = get_args(CleanupTask)


class CleanupRequestedData(_Wire):
    """A wish for a cleanup run now; no task named means all of them."""

    tasks: tuple[CleanupTask, ...] = CLEANUP_TASKS
    dry_run: bool = False
    """Whether only to say what would be removed."""


class CleanupTaskResult(_Wire):
    """What one cleanup task has removed, or would have removed; `orphans` only finds."""

    count: int
    bytes: int
    skipped: str | None = None
    """Why something was left that will have to go: `backlog`, an event that waits may ask for it; `second look`, none
    does, if the next run finds the same. Null: nothing was."""
    complete: bool = True
    """Whether all was looked at; false: the time was up or an error broke it off, and the next run goes on."""
    keys: tuple[str, ...] = ()
    """Of `orphans`: the first hundred of them."""


class CleanupCompletedData(_Wire):
    """What one cleanup run did."""

    cause_id: str
    tasks: Mapping[str, CleanupTaskResult]
    duration_s: float
    dry_run: bool
    errors: tuple[str, ...]


class ImageOutputExpiredData(_Wire):
    """An output whose object is gone because its time had come."""

    output_id: uuid.UUID
    job_id: str
    user_id: str
    oss_key: str
    expired_at: Time


Data = TypeVar("Data", bound=_Wire)


def _require_of_senders(schema: dict[str, Any]) -> None:
    required = {*schema["required"], "specversion", "source", "type"}
    schema["required"] = [name for name in schema["properties"] if name in required]


class CloudEvent(_Wire, Generic[Data]):
    """The envelope; `(source, id)` identifies an event for ever."""

    # Attribute names of CloudEvents are all lower case; the camelCase of the payloads does not apply here.
    model_config = ConfigDict(
        alias_generator=None,
        # They have defaults for whoever makes an event, and are required of whoever sends one.
        json_schema_extra=_require_of_senders,
    )

    specversion: Literal["1.0"] = "1.0"
    id: EventId
    """Unique within its `source`, for ever; at most 255 bytes of UTF-8."""
    source: EventSource = OUR_SOURCE
    """Who speaks: a URI reference, at most 512 bytes of UTF-8."""
    type: str
    time: Time
    """When it happened, from 1970 on, with an offset from UTC."""
    datacontenttype: Literal["application/json"] = "application/json"
    data: Data

    TYPE: ClassVar[str]

    def body(self) -> bytes:
        """The event as it goes over the wire, UTF-8 JSON."""
        return self.model_dump_json(by_alias=True).encode()


class ImageGenerated(CloudEvent[ImageGeneratedData]):
    """A generator's announcement: the only event that makes this product store something."""

    TYPE: ClassVar[str] = "image.generated"
    type: Literal["image.generated"] = "image.generated"
    source: EventSource
    """The generator: a URI reference such as `/generators/sdxl-3`, at most 512 bytes of UTF-8."""

    @model_validator(mode="after")
    def _expires_after_it_happened(self) -> Self:
        if self.data.expires_at is not None and self.data.expires_at <= self.time:
            raise ValueError("data.expiresAt is not after time")
        return self


class ImageUploadCompleted(CloudEvent[ImageUploadCompletedData]):
    """The image is stored: object, row, and now this."""

    TYPE: ClassVar[str] = "image.upload.completed"
    type: Literal["image.upload.completed"] = "image.upload.completed"


class ImageUploadFailed(CloudEvent[ImageUploadFailedData]):
    """The event ended as a dead letter."""

    TYPE: ClassVar[str] = "image.upload.failed"
    type: Literal["image.upload.failed"] = "image.upload.failed"


class ImageUploadDelayed(CloudEvent[ImageUploadDelayedData]):
    """The event waits for its next try."""

    TYPE: ClassVar[str] = "image.upload.delayed"
    type: Literal["image.upload.delayed"] = "image.upload.delayed"


class CleanupRequested(CloudEvent[CleanupRequestedData]):
    """Somebody, or the schedule, wants a cleanup."""

    TYPE: ClassVar[str] = "cleanup.requested"
    type: Literal["cleanup.requested"] = "cleanup.requested"
    data: CleanupRequestedData = CleanupRequestedData()


class CleanupCompleted(CloudEvent[CleanupCompletedData]):
    """A cleanup run has ended."""

    TYPE: ClassVar[str] = "cleanup.completed"
    type: Literal["cleanup.completed"] = "cleanup.completed"


class ImageOutputExpired(CloudEvent[ImageOutputExpiredData]):
    """An output is gone because its time had come."""

    TYPE: ClassVar[str] = "image.output.expired"
    type: Literal["image.output.expired"] = "image.output.expired"


EVENTS: Final[tuple[type[CloudEvent[Any]], ...]] = (
    ImageGenerated,
    ImageUploadCompleted,
    ImageUploadFailed,
    ImageUploadDelayed,
    CleanupRequested,
    CleanupCompleted,
    ImageOutputExpired,
)
