from dataclasses import replace

import pytest

from consumer.adapters import reading_apart
from consumer.adapters.reading_apart import read_apart
from consumer.core.records import Cause
from tests import samples
from tests.fakes import FakeDelivery


async def test_another_process_reads_what_an_event_names() -> None:
    event = samples.event(prompt="ü 🦊")
    delivery = FakeDelivery(event.body(), replays=2)
    assert await read_apart(delivery) == Cause.of(event, 2)


async def test_what_is_no_event_still_names_what_it_names() -> None:
    named = await read_apart(FakeDelivery(b'{"data": {"jobId": "abc123", "userId": "\xff"}}'))
    assert named.job_id is None
    named = await read_apart(FakeDelivery(b'{"data": {"jobId": "abc123"}}'))
    assert named.job_id == "abc123"


async def test_of_a_message_that_ends_its_reader_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = FakeDelivery(b"garbage", replays=1)
    known = await read_apart(delivery)
    monkeypatch.setattr(reading_apart, "__name__", "antigravity.there-is-no-such-module")
    assert await read_apart(delivery) == replace(known, replays=1)
