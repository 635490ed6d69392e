"""What a message names, read where it can do no harm: `python -m consumer.adapters.reading_apart`."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import asdict
from typing import Final

from consumer.core.decode import EventRefusedError, decode
from consumer.core.ports import Delivery
from consumer.core.records import Cause, fingerprint

_TIMEOUT_S: Final = 30


async def read_apart(delivery: Delivery) -> Cause:
    """What the message names; nothing, if the process that reads it ends over it."""
    message = json.dumps([delivery.body.decode("latin-1"), delivery.content_type, delivery.message_id])
    reader = None
    try:
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        async with asyncio.timeout(_TIMEOUT_S):
            told, _ = await reader.communicate(message.encode())
        return Cause(**{**json.loads(told), "replays": delivery.replays})
    except (OSError, TimeoutError, ValueError):
        return Cause(fingerprint(delivery.message_id.encode(), delivery.body), delivery.replays)
    finally:
        if reader is not None and reader.returncode is None:
            reader.kill()


def main() -> None:
    """Standard input is a message; standard output is what it names, as the fields of `Cause`."""
    body, content_type, message_id = json.load(sys.stdin)
    try:
        cause = Cause.of(decode(body.encode("latin-1"), content_type=content_type, message_id=message_id))
    except EventRefusedError as refused:
        cause = refused.cause
    json.dump(asdict(cause), sys.stdout)


if __name__ == "__main__":
    main()
