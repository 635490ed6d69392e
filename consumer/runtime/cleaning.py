"""Ticks and requests become runs of the cleanup, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog
from pydantic import ValidationError

from consumer.core.errors import BrokerError
from consumer.core.ports import Broker, CleanupDelivery, CleanupMeter, Schedule
from consumer.core.redact import redact
from schemas.events import CleanupCompleted, CleanupRequested

Handler: TypeAlias = Callable[[CleanupRequested], Awaitable[CleanupCompleted]]

_PAUSE_S: Final = 5.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Runs, announces the end of the run, arms the schedule, and only then acks: a crash repeats the run."""

    clean_up: Handler
    broker: Broker
    schedule: Schedule
    meter: CleanupMeter
    is_scheduled: bool

    async def take(self, delivery: CleanupDelivery) -> None:
        """The delivery is acked, unless this is cancelled; then it comes again.

        What is no request is acked as well, and logged; so is a tick that is left over from before the schedule was
        turned off.
        """
        if delivery.is_tick and not self.is_scheduled:
            _log.info("a tick is dropped: CLEANUP_INTERVAL_S is 0")
        else:
            await self._run(delivery.body)
            await self._arm()
        await delivery.ack()

    async def _run(self, body: bytes) -> None:
        try:
            request = CleanupRequested.model_validate_json(body, by_alias=True, by_name=False)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, detail['loc'])) or 'event'}: {detail['msg']}"
                for detail in error.errors(include_input=False, include_url=False)
            )
            _log.error("a request for a cleanup is refused", error=redact(problems))
            self.meter.cleanup_ended("refused")
            return None
        _log.info("cleanup begins", event_id=request.id, source=request.source)
        completed = await self.clean_up(request)
        while True:
            try:
                return await self.broker.announce(completed)
            except BrokerError as error:
                _log.warning("the end of a cleanup is announced later", error=redact(str(error)))
                await asyncio.sleep(_PAUSE_S)

    async def _arm(self) -> None:
        try:
            await self.schedule.arm()
        except BrokerError as error:  # every worker arms it now and then
            _log.warning("the schedule was not armed", error=redact(str(error)))
