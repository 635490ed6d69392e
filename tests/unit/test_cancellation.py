import asyncio
from contextlib import suppress

import pytest

from schemas.cancellation import loss_is_no_cancellation


async def library_call(started: asyncio.Event, told: type[BaseException]) -> None:
    """What the AMQP library does: the caller's cancellation reaches it, and it answers as it likes."""
    started.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError as error:
        raise told from error


async def test_a_cancelled_task_is_cancelled_whatever_the_library_says() -> None:
    for told in (asyncio.CancelledError, ConnectionError, ValueError):
        started = asyncio.Event()

        async def work(started: asyncio.Event = started, told: type[BaseException] = told) -> None:
            with loss_is_no_cancellation():
                await library_call(started, told)

        task = asyncio.create_task(work())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_connection_that_cancels_its_callers_is_a_lost_one() -> None:
    with pytest.raises(ConnectionError, match="fell silent"), loss_is_no_cancellation():
        raise asyncio.CancelledError


async def test_an_error_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="other"), loss_is_no_cancellation():
        raise ValueError("other")


async def test_a_deadline_is_a_deadline() -> None:
    with pytest.raises(TimeoutError):  # noqa: PT012 the deadline is what is tested
        async with asyncio.timeout(0.01):
            with loss_is_no_cancellation():
                await library_call(asyncio.Event(), ConnectionError)


async def test_a_cancellation_that_the_library_keeps_to_itself_is_one_all_the_same() -> None:
    begun = asyncio.Event()

    async def call() -> None:
        with loss_is_no_cancellation(), suppress(asyncio.CancelledError):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
