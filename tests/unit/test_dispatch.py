import asyncio

import pytest

from consumer.core.errors import DependencyError, TransientError
from consumer.core.outcome import Failed, Hold, Outcome, Retry, Stored
from consumer.core.records import Cause
from consumer.runtime.dispatch import Dispatch
from schemas.events import ImageGenerated
from schemas.reasons import Reason
from tests import samples
from tests.fakes import FakeDelivery


async def answers(_dependency: str) -> bool:
    return True


async def test_an_event_goes_to_the_handler_and_its_outcome_comes_back() -> None:
    event = samples.event()
    stored = Stored(samples.output(event))

    async def handler(got: ImageGenerated, cause: Cause) -> Outcome:
        assert (got, cause) == (event, Cause.of(event, 2))
        return stored

    dispatched = await Dispatch(handler, answers, 5, [1])(FakeDelivery(event.body(), replays=2))
    assert (dispatched.event, dispatched.outcome) == (event, stored)


async def test_a_message_that_is_no_event_fails_without_reaching_the_handler() -> None:
    async def handler(_event: ImageGenerated, _cause: Cause) -> Outcome:
        raise AssertionError("reached")

    dispatched = await Dispatch(handler, answers, 5, [1])(FakeDelivery(b"garbage", replays=2))
    assert isinstance(dispatched.outcome, Failed)
    assert (dispatched.outcome.reason, dispatched.cause.replays) == (Reason.UNDECODABLE, 2)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TransientError(Reason.SOURCE_UNAVAILABLE, "503"), Reason.SOURCE_UNAVAILABLE),
        (ZeroDivisionError("a defect"), Reason.UNEXPECTED),
    ],
)
async def test_an_error_becomes_an_outcome(error: Exception, reason: Reason) -> None:
    async def handler(_event: ImageGenerated, _cause: Cause) -> Outcome:
        raise error

    dispatched = await Dispatch(handler, answers, 5, [7])(FakeDelivery(samples.body()))
    assert isinstance(dispatched.outcome, Retry)
    assert (dispatched.outcome.reason, dispatched.outcome.delay_s) == (reason, 7)


@pytest.mark.parametrize(
    ("reason", "is_up", "outcome"),
    [
        (Reason.STORAGE_REFUSED, True, Retry),
        (Reason.STORAGE_REFUSED, False, Hold),
        (Reason.STORAGE_UNAVAILABLE, True, Hold),
        (Reason.STORAGE_UNAVAILABLE, False, Hold),
    ],
)
async def test_only_what_the_store_refuses_while_it_takes_something_else_costs_an_attempt(
    reason: Reason,
    is_up: bool,  # noqa: FBT001 a column of the table
    outcome: type[Outcome],
) -> None:
    asked = []

    async def handler(_event: ImageGenerated, _cause: Cause) -> Outcome:
        raise DependencyError("storage", reason, "403")

    async def probe(dependency: str) -> bool:
        asked.append(dependency)
        return is_up

    dispatched = await Dispatch(handler, probe, 5, [7])(FakeDelivery(samples.body()))
    assert isinstance(dispatched.outcome, outcome)
    assert asked == ["storage"]


async def test_a_handler_that_never_ends_is_ended_by_its_deadline() -> None:
    async def handler(_event: ImageGenerated, _cause: Cause) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError("never")

    dispatched = await Dispatch(handler, answers, 0.01, [7])(FakeDelivery(samples.body()))
    assert isinstance(dispatched.outcome, Retry)
    assert dispatched.outcome.reason is Reason.TIMED_OUT


async def test_cancellation_is_not_an_outcome() -> None:
    started = asyncio.Event()

    async def handler(_event: ImageGenerated, _cause: Cause) -> Outcome:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError("never")

    task = asyncio.create_task(Dispatch(handler, answers, 5, [7])(FakeDelivery(samples.body())))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_attempt_that_a_delivery_is_chooses_its_rung_and_ends_the_ladder() -> None:
    async def handler(_event: ImageGenerated, _cause: Cause) -> Outcome:
        raise TransientError(Reason.SOURCE_UNAVAILABLE, "503")

    dispatch = Dispatch(handler, answers, 5, [7, 8])
    outcomes = [(await dispatch(FakeDelivery(samples.body(), attempt=attempt))).outcome for attempt in (2, 3)]
    assert outcomes == [
        Retry(Reason.SOURCE_UNAVAILABLE, "503", 8),
        Failed(Reason.SOURCE_UNAVAILABLE, "503"),
    ]
