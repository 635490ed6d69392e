import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.decode import EventRefusedError, decode
from consumer.core.records import Cause
from schemas.events import MAX_BODY_BYTES, ImageGenerated
from schemas.reasons import Reason
from tests import samples

EVENT = "application/cloudevents+json"


def refusal(body: bytes, content_type: str | None = EVENT) -> EventRefusedError:
    with pytest.raises(EventRefusedError) as caught:
        decode(body, content_type=content_type, message_id="m")
    return caught.value


@pytest.mark.parametrize(
    "content_type", [EVENT, "application/json", f"{EVENT}; charset=utf-8", "Application/JSON", None]
)
def test_an_event_is_read_whatever_of_the_accepted_content_types_it_has(content_type: str | None) -> None:
    event = samples.event()
    assert decode(event.body(), content_type=content_type, message_id="m") == event


@pytest.mark.parametrize("body", [b"", b"garbage", b"\xff\xfe", b'{"id": ', b"[" * 100_000])
def test_what_is_not_json_is_undecodable_and_named_by_its_bytes(body: bytes) -> None:
    refused = refusal(body)
    assert refused.reason is Reason.UNDECODABLE
    assert refused.cause.job_id is None
    assert refused.cause.failure_id == refusal(body).cause.failure_id != refusal(body + b"!").cause.failure_id


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": ""}, "id: String should have at least 1 character"),
        ({"id": "x" * 256}, "id: is longer than 255 bytes"),
        ({"source": None}, "source: Field required"),
        ({"time": None}, "time: Field required"),
        ({"data": {"imageUrl": None, "image_url": "https://cdn.test/x"}}, "data.imageUrl: Field required"),
        ({"time": "yesterday"}, "time: is no RFC 3339 date and time"),
        ({"time": "2026-11-22T13:18:41"}, "time: is no RFC 3339 date and time"),
        ({"specversion": None}, "specversion: field required"),
        ({"type": None}, "type: field required"),
        ({"data": {"userId": "../root"}}, "data.userId: String should match pattern"),
        ({"data": {"userId": "a..b"}}, "data.userId: holds '..'"),
        ({"data": {"imageUrl": "ftp://host/x"}}, "data.imageUrl: is none of https:, http:, file: and data:"),
        ({"data": {"metadata": [1]}}, "data.metadata: Input should be an object"),
        ({"data": {"expiresAt": "2000-01-01T00:00:00Z"}}, "event: data.expiresAt is not after time"),
    ],
)
def test_a_wrong_field_is_named_and_the_job_is_told_where_it_can_be_read(change: dict[str, object], says: str) -> None:
    refused = refusal(samples.body(**change))
    assert refused.reason is Reason.INVALID_EVENT
    assert refused.detail.startswith(says)
    assert refused.cause.job_id == "abc123"


@pytest.mark.parametrize(
    "change", [{"type": "image.deleted"}, {"specversion": "0.3"}, {"type": "image.deleted", "data": {"userId": None}}]
)
def test_an_event_of_another_kind_is_unsupported(change: dict[str, object]) -> None:
    assert refusal(samples.body(**change)).reason is Reason.UNSUPPORTED_EVENT


def test_a_body_of_another_content_type_is_unsupported_and_too_long_a_one_too_large() -> None:
    other = refusal(samples.body(), "text/plain")
    assert (other.reason, other.cause.job_id) == (Reason.UNSUPPORTED_EVENT, "abc123")
    long = refusal(samples.body(data={"prompt": "x" * MAX_BODY_BYTES}))
    assert (long.reason, long.cause.job_id) == (Reason.TOO_LARGE, "abc123")
    longer = refusal(samples.body(data={"prompt": "x" * 4 * MAX_BODY_BYTES}))
    assert (longer.reason, longer.cause.job_id) == (Reason.TOO_LARGE, None)
    assert refusal(b"garbage", "text/plain").cause.job_id is None


@pytest.mark.parametrize("text", [r"\ud800", r"a\u0000b"])
@pytest.mark.parametrize("field", ["prompt", "jobId"])
def test_nul_and_lone_surrogates_are_refused_wherever_they_hide(text: str, field: str) -> None:
    body = samples.body(data={field: "HERE"}).replace(b"HERE", text.encode())
    assert refusal(body).reason is Reason.INVALID_EVENT


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_postgresql_cannot_hold_are_refused(number: str) -> None:
    body = samples.body(data={"metadata": {"seed": "HERE"}}).replace(b'"HERE"', number.encode())
    assert refusal(body).reason is Reason.INVALID_EVENT


def test_an_event_that_a_later_release_accepts_is_still_the_same_event() -> None:
    event = samples.event()
    refused = refusal(event.body().replace(b'"time"', b'"tyme"'))
    assert refused.cause.fingerprint == Cause.of(event).fingerprint
    assert refused.cause.failure_id == Cause.of(event).failure_id


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise_anything_else(body: bytes) -> None:
    refusal(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["specversion", "id", "source", "type", "time", "datacontenttype", "data"]),
    st.sampled_from(["jobId", "userId", "imageUrl", "prompt", "metadata", "expiresAt"]),
    json_values,
    st.booleans(),
)
def test_no_json_in_any_field_makes_it_raise_anything_else(outer: str, inner: str, value: object, deep: bool) -> None:  # noqa: FBT001 drawn
    document = json.loads(samples.event().body())
    (document["data"] if deep else document)[inner if deep else outer] = value
    body = json.dumps(document).encode()
    try:
        event = decode(body, content_type=EVENT, message_id="m")
    except EventRefusedError as refused:
        refused.cause.failure_id  # noqa: B018 it can be derived
    else:
        assert isinstance(event, ImageGenerated)
        event.body()


def test_of_a_refused_event_nothing_is_kept_that_no_row_could_hold() -> None:
    refused = refusal(samples.body(time=None, data={"imageUrl": "HERE"}).replace(b"HERE", rb"https://cdn.test/\u0000"))
    assert (refused.cause.job_id, refused.cause.image_url) == ("abc123", None)


def test_messages_without_a_name_are_told_apart_by_their_ids_and_by_their_runs() -> None:
    causes = []
    for message_id, replays in (("one", 0), ("two", 0), ("one", 1)):
        with pytest.raises(EventRefusedError) as caught:
            decode(b"garbage", content_type=EVENT, message_id=message_id, replays=replays)
        causes.append(caught.value.cause)
    assert len({cause.failure_id for cause in causes}) == len(causes)
