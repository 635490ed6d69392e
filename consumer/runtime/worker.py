"""Deliveries in work: one task each, under the broker's prefetch."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from consumer.core.outcome import Duplicate, Failed, Hold, Outcome, Retry, Stored
from consumer.core.ports import Delivery, Meter
from consumer.core.redact import redact
from consumer.runtime.dispatch import Dispatch, Dispatched
from consumer.runtime.settle import Settle
from consumer.runtime.trial import Trial

_log = structlog.get_logger()


@dataclass(slots=True)
class Worker:
    """Takes deliveries, one call each, and knows when none is left."""

    dispatch: Dispatch
    settle: Settle
    trial: Trial
    meter: Meter
    _in_flight: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, delivery: Delivery) -> None:
        """The delivery is settled and acked, unless this is cancelled; then it comes again."""
        self._enter(delivery)
        try:
            if delivery.is_suspect:
                async with self.trial.of(delivery) as verdict:
                    await self._work(delivery, verdict)
            else:
                async with self.trial.turns.beside():
                    await self._work(delivery)
        finally:
            self._leave(delivery)

    def is_idle(self) -> bool:
        """Whether nothing is in work."""
        return self._in_flight == 0

    async def drain(self) -> None:
        """Nothing is in work any more."""
        while not self.is_idle():
            await self._idle.wait()

    async def _work(self, delivery: Delivery, verdict: Dispatched | None = None) -> None:
        started = time.perf_counter()
        dispatched = verdict or await self.dispatch(delivery)
        outcome = await self.settle(delivery, dispatched.cause, dispatched.outcome)
        self._tell(delivery, dispatched, outcome, time.perf_counter() - started)

    def _enter(self, delivery: Delivery) -> None:
        self._in_flight += 1
        self._idle.clear()
        self.meter.received(delivery)

    def _leave(self, delivery: Delivery) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()
        self.meter.finished(delivery)

    def _tell(self, delivery: Delivery, dispatched: Dispatched, outcome: Outcome, took_s: float) -> None:
        cause = dispatched.cause
        self.meter.settled(outcome.label, outcome.reason)
        facts: dict[str, object] = {
            "job_id": cause.job_id,
            "event_id": cause.event_id,
            "attempt": delivery.attempt,
            "took_ms": round(took_s * 1000, 1),
        }
        match outcome:
            case Stored(output):
                if dispatched.event:
                    self.meter.stored(output, (datetime.now(UTC) - dispatched.event.time).total_seconds())
                _log.info(outcome.label, key=output.oss_key, size_bytes=output.size_bytes, **facts)
            case Duplicate(output):
                _log.info(outcome.label, key=output.oss_key, **facts)
            case Hold() | Retry():
                detail = redact(outcome.detail)
                _log.warning(
                    outcome.label, reason=outcome.reason, detail=detail, next_try_in_s=outcome.delay_s, **facts
                )
            case Failed():
                _log.error(outcome.label, reason=outcome.reason, detail=redact(outcome.detail), **facts)
