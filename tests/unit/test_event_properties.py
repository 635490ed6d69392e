"""What holds for every event, found by trying many."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import ValidationError

from schemas.events import MAX_METADATA_BYTES, ImageGenerated, ImageGeneratedData

# The first draw of a character makes hypothesis read all of Unicode, and the machine may be busy with other tests.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXT = st.text(LETTERS)
JOB_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True).filter(lambda text: ".." not in text)
USER_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@+|:-]{0,253}", fullmatch=True).filter(lambda text: ".." not in text)
PATHS = st.text(st.characters(categories=("L", "N"))).map("https://cdn.example.com/".__add__)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1), timezones=OFFSETS)  # noqa: DTZ001 hypothesis wants naive ones
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
SMALL_OBJECTS = st.dictionaries(TEXT, JSON_VALUES, max_size=5).filter(
    lambda value: len(json.dumps(value)) <= MAX_METADATA_BYTES
)


def short(text: SearchStrategy[str], limit: int) -> SearchStrategy[str]:
    return text.filter(lambda value: 0 < len(value.encode()) <= limit)


@st.composite
def events(draw: st.DrawFn) -> ImageGenerated:
    time = draw(TIMES)
    lifetime = draw(st.none() | st.timedeltas(timedelta(microseconds=1), timedelta(days=300)))
    return ImageGenerated(
        id=draw(short(TEXT, 255)),
        source=draw(short(TEXT, 512)),
        time=time,
        data=ImageGeneratedData(
            job_id=draw(JOB_IDS),
            user_id=draw(USER_IDS),
            image_url=draw(PATHS),
            prompt=draw(st.none() | TEXT),
            metadata=draw(st.none() | SMALL_OBJECTS),
            expires_at=None if lifetime is None else time + lifetime,
        ),
    )


def body(**changes: object) -> bytes:
    """A good event, in which the named fields have other values; `time` and `id` are the envelope's."""
    envelope = {name: changes.pop(name) for name in ("id", "source", "time") if name in changes}
    data = {"jobId": "abc123", "userId": "a@b.com", "imageUrl": "https://cdn.example.com/fox.png", **changes}
    event = {"specversion": "1.0", "id": "1", "source": "/g", "type": "image.generated", "time": "2026-11-22T13:18:41Z"}
    return json.dumps({**event, **envelope, "data": data}).encode()


def decode(**changes: object) -> ImageGenerated:
    return ImageGenerated.model_validate_json(body(**changes))


@PATIENT
@given(events())
def test_an_event_comes_through_the_wire_unchanged(event: ImageGenerated) -> None:
    assert ImageGenerated.model_validate_json(event.body()) == event


@PATIENT
@given(events())
def test_times_on_the_wire_are_utc_with_microseconds(event: ImageGenerated) -> None:
    wire = json.loads(event.body())["time"]
    assert wire.endswith("Z")
    assert datetime.fromisoformat(wire) == event.time


@PATIENT
@given(st.integers(min_value=0, max_value=10**100))
def test_a_number_is_taken_as_its_digits(number: int) -> None:
    assert decode(jobId=number).data.job_id == str(number)


@PATIENT
@given(st.sampled_from(["id", "source", "jobId", "userId", "imageUrl", "prompt"]), TEXT, TEXT)
def test_a_nul_is_refused_everywhere(field: str, before: str, after: str) -> None:
    with pytest.raises(ValidationError):
        decode(**{field: f"{before}\0{after}"})


@PATIENT
@given(JSON_VALUES, TEXT)
def test_a_nul_is_refused_at_any_depth_of_the_metadata(value: object, text: str) -> None:
    for metadata in ({"a": [value, {"b": f"{text}\0"}]}, {f"{text}\0": value}):
        with pytest.raises(ValidationError):
            decode(metadata=metadata)


def test_a_backslash_that_only_looks_like_a_nul_is_kept() -> None:
    metadata = {"escaped": "\\u0000"}
    assert decode(metadata=metadata).data.metadata == metadata


@PATIENT
@given(st.sampled_from(["id", "source", "prompt", "metadata"]), st.characters(categories=["Cs"]))
def test_a_lone_surrogate_is_refused_everywhere(field: str, surrogate: str) -> None:
    value: Any = {"a": surrogate} if field == "metadata" else surrogate
    with pytest.raises(ValidationError):
        decode(**{field: value})
    with pytest.raises(ValidationError):
        ImageGeneratedData(job_id="1", user_id="1", image_url="https://h/", metadata={"a": surrogate})


@PATIENT
@given(st.sampled_from(["jobId", "userId"]), JOB_IDS, JOB_IDS)
def test_two_dots_are_refused_in_what_becomes_an_object_key(field: str, before: str, after: str) -> None:
    with pytest.raises(ValidationError):
        decode(**{field: f"{before}..{after}"})


@pytest.mark.parametrize(("field", "limit"), [("id", 255), ("source", 512), ("jobId", 128), ("userId", 254)], ids=str)
def test_names_have_a_limit(field: str, limit: int) -> None:
    decode(**{field: "a" * limit})
    with pytest.raises(ValidationError):
        decode(**{field: "a" * (limit + 1)})


def test_the_limit_of_an_id_is_in_bytes() -> None:
    with pytest.raises(ValidationError, match="longer than 255 bytes"):
        decode(id="é" * 128)


def test_metadata_may_have_8_kib_and_no_more() -> None:
    room = MAX_METADATA_BYTES - len('{"a":""}')
    decode(metadata={"a": "x" * room})
    with pytest.raises(ValidationError, match="longer than 8192 bytes"):
        decode(metadata={"a": "x" * (room + 1)})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_metadata_without_a_json_number_is_refused(number: str) -> None:
    with pytest.raises(ValidationError):
        ImageGenerated.model_validate_json(body(metadata={"a": 4711}).replace(b"4711", number.encode()))


def test_metadata_that_json_cannot_hold_is_refused() -> None:
    endless: dict[str, object] = {}
    for _ in range(100_000):
        endless = {"a": endless}
    for value in (datetime.now(UTC), b"", {1}, ("\0",), endless):
        with pytest.raises(ValidationError):
            ImageGeneratedData(job_id="1", user_id="1", image_url="https://h/", metadata={"a": value})


@PATIENT
@given(TIMES, st.timedeltas(timedelta(0), timedelta(days=300)))
def test_an_output_cannot_expire_before_it_was_made(time: datetime, age: timedelta) -> None:
    with pytest.raises(ValidationError):
        decode(time=time.isoformat(), expiresAt=(time - age).isoformat())


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-22T13:18:41",
        "2026-11-22",
        "1700000000",
        1_700_000_000,
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        None,
    ],
)
def test_a_time_without_an_offset_or_out_of_range_is_refused(time: object) -> None:
    with pytest.raises(ValidationError):
        decode(time=time)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/a.png",
        "fox.png",
        "https:///a.png",
        "https://h/a b.png",
        "file://host/a.png",
        "javascript:x",
        "https://[::1/",
    ],
)
def test_an_image_url_is_one_of_four_kinds(url: str) -> None:
    with pytest.raises(ValidationError):
        decode(imageUrl=url)
