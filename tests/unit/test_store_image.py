from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest
from fastcrc import crc64

from consumer.adapters.metrics import Metrics
from consumer.core.errors import DependencyError, PermanentError, TransientError
from consumer.core.object_key import object_key
from consumer.core.outcome import Duplicate, Failed, Stored
from consumer.core.records import Cause, Recorded
from consumer.handlers.store_image import StoreImage
from schemas.events import ImageGenerated
from schemas.reasons import Reason
from tests import samples
from tests.fakes import FakeRecords, FakeSource, FakeStore, Journal, fake_inspect

URL = "https://cdn.test/fox.png"


class House:
    def __init__(self, retention: timedelta | None = None) -> None:
        self.journal = Journal()
        self.source = FakeSource(self.journal)
        self.source.images[URL] = b"PNG fox"
        self.store = FakeStore(self.journal)
        self.records = FakeRecords(self.journal)
        self.handler = StoreImage(self.source, fake_inspect, self.store, self.records, Metrics(), retention)

    async def handles(self, event: ImageGenerated, **changes: Any) -> Stored | Duplicate | Failed:
        return await self.handler(event, Cause.of(event, **changes))


async def test_an_event_becomes_an_object_then_a_row() -> None:
    house, event = House(), samples.event(prompt="a red fox", metadata={"model": "sdxl"})
    outcome = await house.handles(event)
    assert house.journal == ["find", "fetch", "store", "record"]
    assert isinstance(outcome, Stored)
    output = outcome.output
    assert house.store.objects == {output.oss_key: b"PNG fox"}
    assert house.store.headers[output.oss_key] == {"Content-Type": "image/png", "x-oss-meta-event-id": event.id}
    assert house.records.outputs == {(event.source, event.id): output}
    assert (output.size_bytes, output.width, output.height, output.prompt) == (7, 2, 3, "a red fox")


async def test_an_event_that_has_its_row_is_neither_fetched_nor_stored_again() -> None:
    house, event = House(), samples.event()
    first = await house.handles(event)
    assert isinstance(first, Stored)
    house.journal.clear()
    assert await house.handles(event) == Duplicate(first.output)
    assert house.journal == ["find"]


async def test_a_run_that_has_its_failure_row_is_settled_as_that_failure_and_a_replay_is_not() -> None:
    house, event = House(), samples.event()
    await house.records.fail(samples.failure(Cause.of(event), reason=Reason.TOO_LARGE, detail="was too large"))
    house.journal.clear()
    assert await house.handles(event) == Failed(Reason.TOO_LARGE, "was too large")
    assert house.journal == ["find"]
    assert isinstance(await house.handles(event, replays=1), Stored)


@pytest.mark.parametrize(
    "change", [{"job_id": "other"}, {"user_id": "other"}, {"image_url": "https://cdn.test/cat.png"}]
)
async def test_another_event_of_the_same_name_conflicts_with_an_output(change: dict[str, str]) -> None:
    house, event = House(), samples.event()
    await house.handles(event)
    outcome = await house.handles(samples.event(id=event.id, **change))
    assert isinstance(outcome, Failed)
    assert outcome.reason is Reason.CONFLICTING_EVENT
    assert len(house.store.objects) == 1


async def test_another_event_of_the_same_name_conflicts_with_a_failure() -> None:
    house, event = House(), samples.event()
    await house.records.fail(samples.failure(Cause.of(event)))
    outcome = await house.handles(samples.event(id=event.id, job_id="other"))
    assert isinstance(outcome, Failed)
    assert outcome.reason is Reason.CONFLICTING_EVENT


async def test_whoever_loses_the_race_for_the_row_is_a_duplicate_or_conflicts() -> None:
    house, event = House(), samples.event()
    rival = samples.output(event)

    class Late(FakeRecords):
        async def find(self, cause: Cause) -> Any:
            found = await super().find(cause)
            self.outputs[event.source, event.id] = rival
            return found

    house.records = Late(house.journal)
    house.handler = StoreImage(house.source, fake_inspect, house.store, house.records, Metrics(), None)
    assert await house.handles(event) == Duplicate(rival)
    house.records.outputs.clear()
    outcome = await house.handles(samples.event(id=event.id, job_id="other"))
    assert isinstance(outcome, Failed)
    assert outcome.reason is Reason.CONFLICTING_EVENT


async def test_whoever_loses_the_race_leaves_no_object_that_the_row_does_not_name() -> None:
    for is_named in (False, True):
        house, event = House(), samples.event()
        key = object_key(event, crc64.xz(house.source.images[event.data.image_url]), "png")
        changes = {"oss_bucket": house.store.bucket, "oss_key": key} if is_named else {}
        rival = samples.output(event, **changes)
        house.records.find = AsyncMock(return_value=Recorded())  # type: ignore[method-assign]
        house.records.outputs[event.source, event.id] = rival
        assert await house.handles(event) == Duplicate(rival)
        assert list(house.store.objects) == ([key] if is_named else [])


async def test_whoever_loses_the_race_to_an_output_that_is_gone_takes_its_object_away_again() -> None:
    # The cleanup may have deleted it before it was put once more.
    house, event = House(), samples.event()
    key = object_key(event, crc64.xz(house.source.images[event.data.image_url]), "png")
    gone = samples.output(event, oss_bucket=house.store.bucket, oss_key=key, expires_at=datetime.now(UTC))
    house.records.find = AsyncMock(return_value=Recorded())  # type: ignore[method-assign]
    house.records.outputs[event.source, event.id] = gone
    assert await house.handles(event) == Duplicate(gone)
    assert house.store.objects == {}


async def test_the_same_key_in_another_bucket_is_not_the_rows_object() -> None:
    house, event = House(), samples.event()
    key = object_key(event, crc64.xz(house.source.images[event.data.image_url]), "png")
    rival = samples.output(event, oss_bucket="before-the-move", oss_key=key)
    house.records.find = AsyncMock(return_value=Recorded())  # type: ignore[method-assign]
    house.records.outputs[event.source, event.id] = rival
    assert await house.handles(event) == Duplicate(rival)
    assert house.store.objects == {}


async def test_an_object_that_cannot_be_taken_away_keeps_nobody_waiting() -> None:
    house, event = House(), samples.event()
    rival = samples.output(event)
    house.records.find = AsyncMock(return_value=Recorded())  # type: ignore[method-assign]
    house.records.outputs[event.source, event.id] = rival
    house.journal.trouble["delete"] = DependencyError("storage", Reason.STORAGE_UNAVAILABLE, "503")
    assert await house.handles(event) == Duplicate(rival)


async def test_an_event_whose_output_is_gone_is_neither_fetched_nor_stored_again() -> None:
    house, event = House(), samples.event()
    gone = samples.output(event, expires_at=datetime.now(UTC))
    house.records.outputs[event.source, event.id] = gone
    assert await house.handles(event) == Duplicate(gone)
    assert house.journal == ["find"]


async def test_an_output_expires_with_its_event_or_its_retention_whichever_is_earlier() -> None:
    late = samples.event(expires_at="2090-01-01T00:00:00Z")
    outcome = await House(timedelta(days=30)).handles(late)
    assert isinstance(outcome, Stored)
    assert outcome.output.expires_at == outcome.output.created_at + timedelta(days=30)
    outcome = await House().handles(late)
    assert isinstance(outcome, Stored)
    assert outcome.output.expires_at == late.data.expires_at
    outcome = await House().handles(samples.event())
    assert isinstance(outcome, Stored)
    assert outcome.output.expires_at is None


async def test_what_goes_wrong_is_raised_with_its_blame_and_leaves_no_row() -> None:
    house = House()
    with pytest.raises(TransientError):
        await house.handles(samples.event(image_url="https://cdn.test/gone.png"))
    house.source.images["https://cdn.test/page"] = b"<html>"
    with pytest.raises(PermanentError):
        await house.handles(samples.event(image_url="https://cdn.test/page"))
    assert not house.records.outputs
    assert not house.store.objects


async def test_an_output_names_the_file_that_it_was_made_from() -> None:
    house, url = House(), "file:///tmp/dream-factory/fox.png"
    house.source.images[url] = b"PNG fox"
    outcome = await house.handles(samples.event(image_url=url))
    assert isinstance(outcome, Stored)
    assert outcome.output.source_file == "/tmp/dream-factory/fox.png"
