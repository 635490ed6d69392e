"""One delivery becomes one outcome."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from consumer.core.decode import EventRefusedError, decode
from consumer.core.errors import Dependency, DependencyError, UploadError
from consumer.core.outcome import Failed, Outcome
from consumer.core.ports import Delivery
from consumer.core.records import Cause
from consumer.core.retry import outcome_of
from schemas.events import ImageGenerated

Handler: TypeAlias = Callable[[ImageGenerated, Cause], Awaitable[Outcome]]
Answers: TypeAlias = Callable[[Dependency], Awaitable[bool]]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What a delivery turned out to be, and what is to become of it; `event` is none if it could not be read."""

    cause: Cause
    outcome: Outcome
    event: ImageGenerated | None = None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Decodes, and runs the handler under a deadline; raises nothing but cancellation."""

    handler: Handler
    answers: Answers
    """Whether a dependency answers its own probe; asked when a delivery met trouble there."""
    timeout_s: float
    retry_delays_s: Sequence[int]

    async def __call__(self, delivery: Delivery) -> Dispatched:
        """The delivery's outcome; nothing is settled yet."""
        try:
            event = decode(
                delivery.body,
                content_type=delivery.content_type,
                message_id=delivery.message_id,
                replays=delivery.replays,
            )
        except EventRefusedError as refused:
            return Dispatched(refused.cause, Failed(refused.reason, refused.detail))
        cause = Cause.of(event, delivery.replays)
        return Dispatched(cause, await self._outcome(event, cause, delivery.attempt), event)

    async def _outcome(self, event: ImageGenerated, cause: Cause, attempt: int) -> Outcome:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self.handler(event, cause)
        except Exception as error:  # noqa: BLE001 a defect must not take the worker's other deliveries along
            if not isinstance(error, UploadError | TimeoutError):
                _log.exception("unexpected error", job_id=cause.job_id, event_id=cause.event_id)
            is_away = isinstance(error, DependencyError) and not await self.answers(error.dependency)
            return outcome_of(error, attempt, self.retry_delays_s, is_away=is_away)
