"""Telling a task that is cancelled from one that merely waits on a lost connection."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loss_is_no_cancellation() -> Iterator[None]:
    """Inside, a call to the AMQP library raises `CancelledError` if, and only if, the task is being cancelled.

    The library cancels whoever waits on a connection that falls silent, which would quietly end the loop that uses it:
    here that is a `ConnectionError`. And it may tell a cancelled caller about an error of its own, or return as if
    nothing were, which would keep the loop from ever ending: here that is the cancellation it was.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if not _is_cancelled():
            raise ConnectionError("the connection to RabbitMQ fell silent") from error
        raise
    except Exception as error:
        if _is_cancelled():
            raise asyncio.CancelledError from error
        raise
    if _is_cancelled():
        raise asyncio.CancelledError


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
