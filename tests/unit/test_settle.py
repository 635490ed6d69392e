"""The order of the steps is the promise; every test here looks at the order."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer.adapters.metrics import Metrics
from consumer.core.announcements import expired
from consumer.core.errors import BrokerError, DependencyError
from consumer.core.outcome import Duplicate, Failed, Hold, Outcome, Retry, Stored
from consumer.core.records import Cause
from consumer.runtime import settle as settle_module
from consumer.runtime.settle import Settle
from schemas.reasons import Reason
from tests import samples
from tests.fakes import FakeBroker, FakeDelivery, FakeRecords, FakeSource, FakeStore, Journal

FILE = "file:///tmp/dream-factory/fox.png"
FAILED = Failed(Reason.NOT_AN_IMAGE, "no image at https://cdn.test/x?token=CANARY")
DOWN = DependencyError("database", Reason.DATABASE_UNAVAILABLE, "down")


@dataclass
class House:
    journal: Journal = field(default_factory=Journal)

    def __post_init__(self) -> None:
        self.records = FakeRecords(self.journal)
        self.broker = FakeBroker(self.journal)
        self.source = FakeSource(self.journal)
        self.source.images[FILE] = b"PNG"
        self.event = samples.event(image_url=FILE)
        self.cause = Cause.of(self.event)
        self.output = samples.output(self.event)
        self.settle = Settle(self.records, self.broker, self.source, FakeStore(self.journal), Metrics(), "worker-1")

    async def settles(self, outcome: Outcome, **delivery: Any) -> Outcome:
        return await self.settle(FakeDelivery(b"body", self.journal, **delivery), self.cause, outcome)


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(settle_module, "_FIRST_PAUSE_S", 0)
    return House()


@pytest.mark.parametrize("kind", [Stored, Duplicate])
async def test_a_stored_image_is_announced_then_its_file_goes_then_the_ack(
    house: House, kind: type[Stored | Duplicate]
) -> None:
    await house.settles(kind(house.output))
    assert house.journal == ["announce completed", "discard", "ack"]
    assert FILE not in house.source.images


@pytest.mark.parametrize(("bucket", "url"), [(FakeStore.bucket, "?signed"), ("an-older-one", "/x.png")])
async def test_a_completion_names_where_the_object_is_though_workers_store_elsewhere_by_now(
    house: House, bucket: str, url: str
) -> None:
    await house.settles(Duplicate(replace(house.output, oss_bucket=bucket)))
    [event] = house.broker.announced
    assert event.data.image_url.endswith(url)


async def test_a_failure_is_recorded_then_announced_then_dead_lettered_then_acked(house: House) -> None:
    assert await house.settles(FAILED, attempt=3) == Failed(Reason.NOT_AN_IMAGE, "no image at https://cdn.test/x")
    assert house.journal == ["fail", "announce failed", "copy to image-uploads.dead", "ack"]
    ((body, headers),) = house.broker.queues["image-uploads.dead"]
    (failure,) = house.records.failures.values()
    assert body == b"body"
    assert headers == {
        "x-reason": "not_an_image",
        "x-detail": "no image at https://cdn.test/x",
        "x-attempt": 3,
        "x-failed-at": failure.failed_at.isoformat(),
        "x-worker": "worker-1",
        "x-replays": 0,
    }
    assert FILE in house.source.images  # a replay may want it


@pytest.mark.parametrize(
    ("outcome", "attempt"),
    [
        (Hold(Reason.STORAGE_UNAVAILABLE, "503", 5), 2),
        (Retry(Reason.SOURCE_UNAVAILABLE, "503", 30), 3),
    ],
)
async def test_a_delay_is_a_copy_then_a_hint_then_the_ack_and_only_a_retry_counts(
    house: House, outcome: Hold | Retry, attempt: int
) -> None:
    await house.settles(outcome, attempt=2)
    rung = f"image-uploads.retry.{outcome.delay_s}s"
    assert house.journal == [f"copy to {rung}", "announce delayed", "ack"]
    assert house.broker.queues[rung] == [(b"body", {"x-attempt": attempt})]
    (hint,) = house.broker.announced
    assert (hint.data.held, hint.data.attempt) == (isinstance(outcome, Hold), 2)
    assert (hint.data.next_try_at - hint.time).total_seconds() == outcome.delay_s
    assert FILE in house.source.images


async def test_an_output_that_exists_wins_over_a_failure(house: House) -> None:
    await house.records.record(house.output)
    house.journal.clear()
    assert await house.settles(FAILED) == Duplicate(house.output)
    assert house.journal == ["fail", "announce completed", "discard", "ack"]


async def test_a_failure_that_is_recorded_already_is_the_one_that_is_told(house: House) -> None:
    await house.settles(FAILED)
    again = await house.settles(Failed(Reason.TOO_LARGE, "another verdict"), attempt=2)
    assert again == Failed(Reason.NOT_AN_IMAGE, "no image at https://cdn.test/x")
    first, second = house.broker.announced
    assert first.body() == second.body()
    assert len(house.records.failures) == 1
    one, other = house.broker.queues["image-uploads.dead"]
    assert one == other


async def test_a_message_that_names_no_job_is_failed_in_silence(house: House) -> None:
    house.cause = Cause("aa")
    await house.settles(Failed(Reason.UNDECODABLE, "no JSON"))
    assert house.journal == ["fail", "copy to image-uploads.dead", "ack"]


@pytest.mark.parametrize(
    ("delivery", "announced"),
    [
        ({}, ["announce expired"]),
        ({"is_first": False}, ["announce completed", "discard", "announce expired"]),
    ],
)
async def test_a_duplicate_of_an_output_that_is_gone_hears_that_and_of_its_completion_if_it_was_here_before(
    house: House, delivery: dict[str, bool], announced: list[str]
) -> None:
    # Whoever was here before may be the one that stored it, of which nobody may have heard.
    house.output = replace(house.output, expires_at=datetime.now(UTC))
    await house.settles(Duplicate(house.output), **delivery)
    assert house.journal == [*announced, "discard", "ack"]
    assert house.broker.announced[-1] == expired(house.output)
    assert FILE not in house.source.images


async def test_a_duplicate_of_an_output_that_will_be_gone_hears_of_its_completion(house: House) -> None:
    house.output = replace(house.output, expires_at=datetime.now(UTC) + timedelta(hours=1))
    await house.settles(Duplicate(house.output))
    assert house.journal == ["announce completed", "discard", "ack"]


async def test_a_failure_of_an_event_whose_output_is_gone_is_answered_as_its_duplicate(house: House) -> None:
    house.output = replace(house.output, expires_at=datetime.now(UTC))
    await house.records.record(house.output)
    house.journal.clear()
    assert await house.settles(FAILED) == Duplicate(house.output)
    assert house.journal == ["fail", "announce expired", "discard", "ack"]


async def test_an_image_that_was_stored_after_its_time_is_announced_all_the_same(house: House) -> None:
    await house.settles(Stored(replace(house.output, expires_at=datetime.now(UTC))))
    assert house.journal == ["announce completed", "discard", "ack"]


STEPS = {
    "stored": ["announce completed", "discard", "ack"],
    "failed": ["fail", "announce failed", "copy to image-uploads.dead", "ack"],
    "retried": ["copy to image-uploads.retry.5s", "announce delayed", "ack"],
}


@pytest.mark.parametrize(("name", "refused"), [(name, step) for name, steps in STEPS.items() for step in steps[:-1]])
@pytest.mark.parametrize("trouble", [BrokerError("refused"), DOWN, ZeroDivisionError("a defect")])
async def test_a_refused_step_is_repeated_and_nothing_is_acked_before_it_succeeds(
    house: House, name: str, refused: str, trouble: Exception
) -> None:
    outcomes: dict[str, Outcome] = {
        "stored": Stored(house.output),
        "failed": FAILED,
        "retried": Retry(Reason.SOURCE_GONE, "404", 5),
    }
    house.journal.trouble[refused] = trouble
    await house.settles(outcomes[name])
    if refused == "announce delayed":
        assert house.journal == [step for step in STEPS[name] if step != refused]  # a hint is not worth a second copy
    else:
        assert house.journal[-1] == "ack"
        assert house.journal.count("ack") == 1
        assert refused in house.journal
        assert house.journal.index(refused) < house.journal.index("ack")


async def test_a_conflicting_event_fails_beside_the_event_it_conflicts_with(house: House) -> None:
    await house.settles(FAILED)
    other = Cause.of(samples.event(id=house.event.id, job_id="another"))
    house.cause = other
    await house.settles(Failed(Reason.CONFLICTING_EVENT, "conflict"))
    assert house.broker.announced[-1].id == str(other.conflict_id)
    assert {failure.reason for failure in house.records.failures.values()} == {
        Reason.NOT_AN_IMAGE,
        Reason.CONFLICTING_EVENT,
    }


async def test_a_conflict_leaves_the_id_of_a_failure_to_the_event_that_came_first(house: House) -> None:
    await house.settles(Failed(Reason.CONFLICTING_EVENT, "conflict"))
    assert list(house.records.failures) == [house.cause.conflict_id]


async def test_the_row_of_a_failure_names_its_run_its_file_and_its_url_without_a_query(house: House) -> None:
    house.cause = Cause.of(house.event, replays=2)
    await house.settles(FAILED, attempt=3, replays=2)
    (row,) = house.records.failures.values()
    assert (row.attempts, row.replays, row.source_file) == (3, 2, "/tmp/dream-factory/fox.png")
    ((_, headers),) = house.broker.queues["image-uploads.dead"]
    assert headers["x-replays"] == 2
    house.cause = Cause.of(samples.event(image_url="https://cdn.test/fox.png?Signature=CANARY"))
    await house.settles(FAILED)
    assert house.records.failures[house.cause.failure_id].image_url == "https://cdn.test/fox.png"


async def test_between_two_tries_of_a_refused_step_nothing_is_done(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle_module, "_FIRST_PAUSE_S", 3600)
    house.journal.trouble["announce completed"] = BrokerError("refused")
    settling = asyncio.create_task(house.settles(Stored(house.output)))
    done, _ = await asyncio.wait((settling,), timeout=0.01)
    assert not done
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert house.journal == []


@pytest.mark.parametrize("kind", ["stored", "retried"])
async def test_what_is_cancelled_in_the_middle_is_not_acked(house: House, kind: str) -> None:
    outcomes: dict[str, Outcome] = {"stored": Stored(house.output), "retried": Retry(Reason.SOURCE_GONE, "404", 5)}
    begun = asyncio.Event()
    announce = house.broker.announce

    async def hang(_event: object) -> None:
        house.broker.announce = announce  # type: ignore[method-assign]  # only the first one hangs
        begun.set()
        await asyncio.Event().wait()

    house.broker.announce = hang  # type: ignore[assignment,method-assign]
    settling = asyncio.create_task(house.settles(outcomes[kind]))
    await begun.wait()
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert "ack" not in house.journal
