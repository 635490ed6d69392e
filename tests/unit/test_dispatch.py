import asyncio

import pytest

from consumer.core.errors import TransientError
from consumer.core.outcome import Failed, Outcome, Retry, Stored
from consumer.core.records import Cause
from consumer.runtime.dispatch import Dispatch
from schemas.events import ImageGenerated
from schemas.reasons import Reason
from tests import samples
from tests.fakes import FakeDelivery


async def test_an_event_goes_to_the_handler_and_its_outcome_comes_back() -> None:
    event = samples.event()
    stored = Stored(samples.output(event))

    async def handler(got: ImageGenerated, cause: Cause) -> Outcome:
        assert (got, cause) == (event, Cause.of(event, 2))
        return stored

    dispatched = await Dispatch(handler, 5, [1])(FakeDelivery(event.body(), replays=2))
    assert (dispatched.event, dispatched.outcome) == (event, stored)


async def test_a_message_that_is_no_event_fails_without_reaching_the_handler() -> None:
    async def handler(_event: ImageGenerated, _cause: Cause) -> Outcome:
        raise AssertionError("reached")

    dispatched = await Dispatch(handler, 5, [1])(FakeDelivery(b"garbage"))
    assert isinstance(dispatched.outcome, Failed)
    assert dispatched.outcome.reason is Reason.UNDECODABLE


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

    dispatched = await Dispatch(handler, 5, [7])(FakeDelivery(samples.body()))
    assert isinstance(dispatched.outcome, Retry)
    assert (dispatched.outcome.reason, dispatched.outcome.delay_s) == (reason, 7)


async def test_a_handler_that_never_ends_is_ended_by_its_deadline() -> None:
    async def handler(_event: ImageGenerated, _cause: Cause) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError("never")

    dispatched = await Dispatch(handler, 0.01, [7])(FakeDelivery(samples.body()))
    assert isinstance(dispatched.outcome, Retry)
    assert dispatched.outcome.reason is Reason.TIMED_OUT


async def test_cancellation_is_not_an_outcome() -> None:
    started = asyncio.Event()

    async def handler(_event: ImageGenerated, _cause: Cause) -> Outcome:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError("never")

    task = asyncio.create_task(Dispatch(handler, 5, [7])(FakeDelivery(samples.body())))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
