"""An outcome becomes true: rows first, then what others hear, then the acknowledgement.

The unacked delivery is the outbox. A crash between any two steps leads to a redelivery, which finds in the rows what
was decided and finishes it; so every step here may run twice and none may run early.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from consumer.core.announcements import completed, current_url, delayed, expired, failed
from consumer.core.errors import BrokerError, DependencyError
from consumer.core.outcome import Duplicate, Failed, Hold, Outcome, Retry, Stored
from consumer.core.ports import Broker, Delivery, ImageSource, Meter, ObjectStore, Records
from consumer.core.records import Cause, Failure, Output
from consumer.core.redact import redact, redact_url
from consumer.core.source_file import source_file
from schemas import topology
from schemas.reasons import Reason

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Settle:
    """Settles deliveries; `ack` is called here and nowhere else."""

    records: Records
    broker: Broker
    source: ImageSource
    store: ObjectStore
    meter: Meter
    worker_id: str

    async def __call__(self, delivery: Delivery, cause: Cause, outcome: Outcome) -> Outcome:
        """The outcome is true and the delivery is acked; returns what it came to, for a stored output wins.

        A step that the database or the broker refuses is repeated until it succeeds; the work is not.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                settled = await self._settle(delivery, cause, outcome)
            except (BrokerError, DependencyError) as error:
                _log.warning("settling is delayed", outcome=outcome.label, error=redact(str(error)))
            except Exception:  # noqa: BLE001 for a defect of ours no message may be lost
                _log.exception("settling is delayed by an unexpected error", outcome=outcome.label)
            else:
                await delivery.ack()
                return settled
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _settle(self, delivery: Delivery, cause: Cause, outcome: Outcome) -> Outcome:
        match outcome:
            case Stored(output):
                await self._announce_completion(cause, output)
            case Duplicate(output):
                await self._announce_again(delivery, cause, output)
            case Hold() | Retry():
                await self._try_later(delivery, cause, outcome)
            case Failed():
                return await self._fail(delivery, cause, outcome)
        return outcome

    async def _announce_completion(self, cause: Cause, output: Output) -> None:
        with self.meter.stage("announce"):
            await self.broker.announce(completed(output, current_url(output, self.store)))
        await self._discard(cause)

    async def _announce_again(self, delivery: Delivery, cause: Cause, output: Output) -> None:
        is_gone = output.is_gone(datetime.now(UTC))
        # Whoever was here before may be the one that stored it, of which nobody may have heard.
        if not is_gone or not delivery.is_first:
            await self._announce_completion(cause, output)
        if is_gone:
            await self.broker.announce(expired(output))
            await self._discard(cause)

    async def _discard(self, cause: Cause) -> None:
        if cause.image_url is not None:
            await self.source.discard(cause.image_url)

    async def _try_later(self, delivery: Delivery, cause: Cause, outcome: Hold | Retry) -> None:
        attempt = delivery.attempt + isinstance(outcome, Retry)
        queue = topology.rung_queue(outcome.delay_s)
        headers: dict[str, str | int] = {topology.X_ATTEMPT: attempt}
        if delivery.is_suspect:  # a copy's count begins anew, and it would be forgotten
            headers[topology.X_SUSPECT] = 1
        await self.broker.copy(delivery, queue, headers)
        try:
            if hint := delayed(cause, outcome, delivery.attempt, datetime.now(UTC)):
                await self.broker.announce(hint)
        except Exception as error:  # noqa: BLE001 to repeat the copy for a hint's sake would double the event
            _log.warning("a hint was not published", error=redact(repr(error)))

    async def _fail(self, delivery: Delivery, cause: Cause, outcome: Failed) -> Outcome:
        verdict = await self.records.fail(_failure(delivery, cause, outcome))
        if isinstance(verdict, Output):
            await self._announce_again(delivery, cause, verdict)
            return Duplicate(verdict)
        if event := failed(verdict):
            await self.broker.announce(event)
        await self.broker.copy(
            delivery,
            topology.DEAD_QUEUE,
            {
                topology.X_REASON: verdict.reason,
                topology.X_DETAIL: verdict.detail,
                topology.X_ATTEMPT: verdict.attempts,
                topology.X_FAILED_AT: verdict.failed_at.isoformat(),
                topology.X_WORKER: self.worker_id,
                topology.X_REPLAYS: verdict.replays,
            },
        )
        return Failed(verdict.reason, verdict.detail)


def _failure(delivery: Delivery, cause: Cause, outcome: Failed) -> Failure:
    return Failure(
        id=cause.conflict_id if outcome.reason is Reason.CONFLICTING_EVENT else cause.failure_id,
        event_source=cause.source,
        event_id=cause.event_id,
        fingerprint=cause.fingerprint,
        job_id=cause.job_id,
        user_id=cause.user_id,
        image_url=redact_url(cause.image_url) if cause.image_url is not None else None,
        reason=outcome.reason,
        detail=redact(outcome.detail),
        attempts=delivery.attempt,
        replays=cause.replays,
        failed_at=datetime.now(UTC),
        source_file=source_file(cause.image_url),
    )
