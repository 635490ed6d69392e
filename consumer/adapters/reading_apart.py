"""What a message names, read where it can do no harm."""

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from consumer.core.decode import EventRefusedError, decode
from consumer.core.ports import Delivery
from consumer.core.records import Cause, fingerprint

_TIMEOUT_S: Final = 30


async def read_apart(delivery: Delivery) -> Cause:
    """What the message names; nothing, if the process that reads it ends over it."""
    # Not forked: a child would have our connections.
    process = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    message = (delivery.body, delivery.content_type, delivery.message_id, delivery.replays)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await asyncio.get_running_loop().run_in_executor(process, _read, *message)
    except (BrokenProcessPool, TimeoutError):
        return Cause(fingerprint((delivery.message_id or "").encode(), delivery.body), delivery.replays)
    finally:
        process.shutdown(wait=False, cancel_futures=True)


def _read(body: bytes, content_type: str | None, message_id: str | None, replays: int) -> Cause:
    try:
        return Cause.of(decode(body, content_type=content_type, message_id=message_id, replays=replays), replays)
    except EventRefusedError as refused:
        return refused.cause
