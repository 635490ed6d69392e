"""Links on which nothing comes through any more, and a broker that takes no messages, under load."""

import asyncio
from typing import Final

from tests.faults.campaign import campaign
from tests.faults.ledger import Verdict
from tests.faults.restarts import under_load
from tests.faults.services import Services
from tests.faults.world import World

_OSS_TIMEOUT_S: Final = "2"
_HEARTBEAT_S: Final = 1
_SILENCE_S: Final = 3 * (_HEARTBEAT_S + 1) + 2  # so much later the connection is given up
_QUERY_S: Final = 17  # longer than a query is waited for
_ALARM_S: Final = 12  # longer than a confirm is waited for


@campaign(freezes=4)
async def freezes(services: Services, *, freezes: int = 20) -> Verdict:
    """The links to broker, database and store freeze, and the broker raises a memory alarm, in turn."""
    async with World.opened(services, OSS_TIMEOUT_S=_OSS_TIMEOUT_S) as world:
        frozen_s = ((world.to_broker, _SILENCE_S), (world.to_database, _QUERY_S), (world.to_storage, _SILENCE_S))

        async def freeze(number: int) -> None:
            turn = number % (len(frozen_s) + 1)
            if turn == len(frozen_s):
                await _alarm(services)
                return
            link, seconds = frozen_s[turn]
            link.freeze()
            await asyncio.sleep(seconds)
            link.thaw()

        return await under_load(world, freezes, freeze, AMQP_URL=f"{world.to_broker.url()}?heartbeat={_HEARTBEAT_S}")


async def _alarm(services: Services) -> None:
    await asyncio.to_thread(services.rabbitmq.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    await asyncio.sleep(_ALARM_S)
    await asyncio.to_thread(services.rabbitmq.ctl, "set_vm_memory_high_watermark", "absolute", "1GB")
