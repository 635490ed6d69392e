from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer.core.dead_letter import DeadLetter
from consumer.operate.choice import Choice
from consumer.operate.moment import moment

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LETTER = DeadLetter(
    message_id="m",
    event_id="e",
    source="/generators/test",
    fingerprint="f",
    job_id="abc123",
    user_id="test@factory-buy.com",
    image_url="https://cdn.test/fox.png",
    happened_at=NOON,
    reason="not_an_image",
    detail="5 bytes that are no image",
    attempts=1,
    replays=0,
    failed_at=NOON,
    worker="w-1",
    size_bytes=100,
)


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"reasons": ("too_large", "not_an_image")},
        {"job_id": "abc123"},
        {"user_id": "test@factory-buy.com"},
        {"since": NOON},
        {"until": NOON + timedelta(microseconds=1)},
        {"reasons": ("not_an_image",), "job_id": "abc123", "since": NOON - timedelta(hours=1)},
    ],
)
def test_a_letter_is_meant_when_all_that_is_named_is_true_of_it(named: dict[str, Any]) -> None:
    assert Choice(**named).includes(LETTER)


@pytest.mark.parametrize(
    "named",
    [
        {"reasons": ("too_large",)},
        {"job_id": "abc12"},
        {"user_id": "test"},
        {"since": NOON + timedelta(microseconds=1)},
        {"until": NOON},
        {"reasons": ("not_an_image",), "job_id": "another"},
    ],
)
def test_a_letter_is_not_meant_when_anything_that_is_named_is_not(named: dict[str, Any]) -> None:
    assert not Choice(**named).includes(LETTER)


@pytest.mark.parametrize("named", [{"since": NOON}, {"until": NOON}])
def test_a_letter_that_tells_no_time_is_outside_of_every_span(named: dict[str, Any]) -> None:
    timeless = replace(LETTER, failed_at=None)
    assert not Choice(**named).includes(timeless)
    assert Choice().includes(timeless)


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", timedelta(seconds=90)), ("30m", timedelta(minutes=30)), ("2h", timedelta(hours=2)), ("7d", timedelta(7))],
)
def test_a_time_may_be_so_long_ago(text: str, ago: timedelta) -> None:
    before = datetime.now(UTC)
    assert before - ago <= moment(text) <= datetime.now(UTC) - ago


@pytest.mark.parametrize("text", ["2026-11-22T13:00:00+01:00", "2026-11-22T12:00:00Z", "20261122T120000Z"])
def test_a_time_may_be_iso_8601(text: str) -> None:
    assert moment(text) == NOON


def test_a_time_without_an_offset_is_local() -> None:
    assert moment("2026-11-22 12:00") == datetime(2026, 11, 22, 12).astimezone()


@pytest.mark.parametrize(
    "text", ["", "soon", "2", "-2h", "2w", "2026-13-01", "9999999h", "999999d", "0001-01-01T00:00+01:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        moment(text)
