"""What is known of a job is told in order, and what cannot be is named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer.adapters.oss import StoredObject
from consumer.core.dead_letter import DeadLetter
from consumer.core.object_key import happened_at, object_key
from consumer.core.records import Cause
from consumer.operate import report
from consumer.operate.display import shown
from consumer.operate.timeline import (
    Known,
    KnownFailure,
    KnownOutput,
    Missing,
    TempFile,
    Unknown,
    contradictions,
    timeline,
)
from schemas.reasons import Reason
from tests import samples

LATER = datetime(2026, 11, 22, 14, tzinfo=UTC)  # the event is of 13:18
FILE = "file:///tmp/dream-factory/fox.png"
EVENT = samples.event(image_url=FILE)
CAUSE = Cause.of(EVENT)
ROW = samples.output(EVENT, oss_key=object_key(EVENT, 1, "png"), created_at=LATER + timedelta(minutes=3))
STORED = KnownOutput(ROW, None, StoredObject(ROW.size_bytes, ROW.crc64, LATER + timedelta(minutes=2)))
FAILED = KnownFailure(samples.failure(CAUSE, failed_at=LATER), None)
RESOLVED = replace(FAILED, resolved_at=LATER + timedelta(minutes=4))
LETTER = DeadLetter(
    message_id=EVENT.id,
    event_id=EVENT.id,
    source=EVENT.source,
    fingerprint=CAUSE.fingerprint,
    job_id=EVENT.data.job_id,
    user_id=EVENT.data.user_id,
    image_url=FILE,
    happened_at=EVENT.time,
    reason="not_an_image",
    detail="5 bytes that are no image",
    attempts=3,
    replays=0,
    failed_at=LATER + timedelta(seconds=1),
    worker="w-1",
    size_bytes=100,
)


EXPIRED = replace(STORED, row=replace(ROW, expires_at=LATER + timedelta(minutes=5)))


def known(**parts: Any) -> Known:
    nothing: dict[str, Any] = {"outputs": [], "failures": [], "letters": [], "files": {}}
    return Known(**{**nothing, "at": LATER + timedelta(hours=1), **parts})


def told(of: Known) -> list[str]:
    return [entry.what for entry in timeline(of)]


def test_a_job_that_was_stored_is_told_from_its_event_on() -> None:
    of = known(outputs=[STORED])
    assert told(of) == ["event", "object", "stored"]
    assert contradictions(of) == []


def test_a_job_that_has_failed_is_told_in_the_order_of_time() -> None:
    of = known(failures=[FAILED], letters=[LETTER], files={FILE: TempFile(LATER - timedelta(hours=2))})
    assert told(of) == ["temp file", "event", "failed", "dead letter"]
    assert contradictions(of) == []


def test_a_job_that_was_replayed_and_stored_is_told_in_the_order_of_time() -> None:
    of = known(outputs=[STORED], failures=[RESOLVED])
    assert told(of) == ["event", "failed", "object", "stored", "resolved"]
    assert contradictions(of) == []


def test_what_has_no_time_comes_last() -> None:
    assert told(known(outputs=[replace(STORED, object=Missing())], files={}))[-1] == "object"


def test_an_output_whose_time_has_come_is_told_as_expired_and_its_object_as_what_a_cleanup_takes() -> None:
    before, after = LATER, LATER + timedelta(minutes=6)
    assert told(known(outputs=[EXPIRED], at=before)) == ["event", "object", "stored", "expires"]
    of = known(outputs=[EXPIRED], at=after)
    assert told(of) == ["event", "object", "stored", "expired"]
    assert [entry.text.partition("; ")[2] for entry in timeline(of) if entry.what == "object"] == [
        "the next cleanup deletes it"
    ]
    gone = known(outputs=[replace(EXPIRED, object=Missing(), deleted_at=after)], at=after)
    assert told(gone) == ["event", "stored", "expired", "deleted", "object"]


def test_an_event_is_told_once_however_much_is_known_of_it() -> None:
    of = known(outputs=[STORED], failures=[RESOLVED], letters=[LETTER])
    assert told(of).count("event") == 1


def test_the_time_of_an_event_is_read_from_the_key_of_its_object() -> None:
    assert happened_at(ROW.oss_key) == EVENT.time
    assert happened_at("users/u/jobs/j/image-123.png") is None


# Of another event, which used the name of one that is stored.
OTHER = replace(FAILED, row=replace(FAILED.row, fingerprint="other", reason=Reason.CONFLICTING_EVENT))
OTHERS_LETTER = replace(LETTER, fingerprint="other", reason="conflicting_event")


def test_an_event_that_conflicts_with_a_stored_one_is_not_taken_for_it() -> None:
    of = known(outputs=[STORED], failures=[OTHER], letters=[OTHERS_LETTER])
    (letter,) = [entry.text for entry in timeline(of) if entry.what == "dead letter"]
    assert "stored" not in letter


@pytest.mark.parametrize(
    ("of", "says"),
    [
        (known(outputs=[replace(STORED, object=Missing())]), "has no object"),
        (known(outputs=[replace(STORED, deleted_at=LATER)]), "is deleted, and its object is still there"),
        (known(outputs=[replace(EXPIRED, deleted_at=LATER)]), "is deleted, and its object is still there"),
        (known(outputs=[replace(EXPIRED, object=Missing())], at=LATER), "has no object"),
        (
            known(outputs=[replace(STORED, object=StoredObject(4, ROW.crc64, LATER))]),
            f"has 4 bytes and crc64 {ROW.crc64}, its row",
        ),
        (known(outputs=[replace(STORED, object=StoredObject(ROW.size_bytes, "1", LATER))]), "and crc64 1, its row"),
        (known(outputs=[STORED], failures=[FAILED]), "is not resolved"),
        (known(letters=[LETTER]), "has no row in job_failures"),
        (known(failures=[FAILED], letters=[replace(LETTER, replays=1)]), "has no row in job_failures"),
        (
            known(outputs=[STORED], failures=[RESOLVED], files={FILE: TempFile(LATER)}),
            "is stored, and its temp file is still there",
        ),
    ],
)
def test_what_cannot_be_is_named(of: Known, says: str) -> None:
    (sentence,) = contradictions(of)
    assert says in sentence


@pytest.mark.parametrize(
    "of",
    [
        known(outputs=[STORED], failures=[RESOLVED], letters=[LETTER], files={FILE: Missing()}),
        known(outputs=[replace(STORED, object=Unknown("OSS did not answer"))]),
        known(outputs=[replace(STORED, object=Missing(), deleted_at=LATER)]),
        known(outputs=[EXPIRED]),
        known(outputs=[replace(EXPIRED, object=Missing())]),
        known(outputs=[replace(EXPIRED, object=Missing(), deleted_at=LATER)]),
        known(failures=[FAILED], letters=[LETTER], files={FILE: TempFile(LATER)}),
        known(failures=[FAILED]),
        known(letters=[replace(LETTER, reason="crash_loop", worker=None)]),
        known(outputs=[STORED], failures=[OTHER], letters=[OTHERS_LETTER], files={FILE: TempFile(LATER)}),
        known(outputs=[STORED], failures=[replace(FAILED, row=samples.failure(replace(CAUSE, fingerprint="other")))]),
    ],
)
def test_what_can_be_is_not_named(of: Known) -> None:
    assert contradictions(of) == []


def test_a_failure_without_its_letter_and_a_letter_of_a_stored_event_say_so() -> None:
    (failed,) = [entry.text for entry in timeline(known(failures=[FAILED])) if entry.what == "failed"]
    assert "discarded, or on its way again" in failed
    of = known(outputs=[STORED], failures=[RESOLVED], letters=[LETTER])
    (letter,) = [entry.text for entry in timeline(of) if entry.what == "dead letter"]
    assert "the event is stored: discard it" in letter
    assert "attempt 3" in letter


def test_a_body_that_is_no_json_shows_no_signature_however_its_url_is_written() -> None:
    body = rb'{"imageUrl": "https:\/\/h\/x.png?Signature=CANARY" BROKEN'
    assert shown(report._body(body)) == '{"imageUrl": "https://h/x.png" BROKEN'
