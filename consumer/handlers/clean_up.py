"""One run of the cleanup, task by task."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

import structlog

from consumer.core.announcements import cleaned
from consumer.core.cleanup import Run, Tally
from consumer.core.errors import BrokerError, UploadError
from consumer.core.ports import CleanupMeter, CleanupOutcome
from consumer.core.redact import redact
from schemas.events import CleanupCompleted, CleanupCompletedData, CleanupRequested, CleanupTask

Task: TypeAlias = Callable[[Run, Tally], Awaitable[None]]

_BUDGET_S: Final = 600.0  # a third of what a broker waits for the acknowledgement
_GRACE_S: Final = 60.0  # for the batch that is in work when the time is up; then the task is cut off

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Handles `cleanup.requested`."""

    tasks: Mapping[CleanupTask, Task]
    meter: CleanupMeter
    budget_s: float = _BUDGET_S
    grace_s: float = _GRACE_S

    async def __call__(self, request: CleanupRequested) -> CleanupCompleted:
        """Each task that was asked for has run, for its share of the time, whatever became of the others."""
        started = time.monotonic()
        named = request.data.tasks or tuple(self.tasks)
        wanted = [task for task in self.tasks if task in named]
        tallies = {
            task: await self._run(task, request, share_s=(started + self.budget_s - time.monotonic()) / left)
            for task, left in zip(wanted, range(len(wanted), 0, -1), strict=True)
        }
        data = CleanupCompletedData(
            cause_id=request.id,
            tasks={task: tally.result() for task, tally in tallies.items()},
            duration_s=round(time.monotonic() - started, 3),
            dry_run=request.data.dry_run,
            errors=tuple(f"{task}: {error}" for task, tally in tallies.items() for error in tally.errors),
        )
        self._tell(data)
        return cleaned(request, data, datetime.now(UTC))

    async def _run(self, task: CleanupTask, request: CleanupRequested, share_s: float) -> Tally:
        ends_at = time.monotonic() + share_s
        run = Run(datetime.now(UTC), request.data.dry_run, is_over=lambda: time.monotonic() >= ends_at)
        tally = Tally()
        try:
            async with asyncio.timeout(share_s + self.grace_s):
                await self.tasks[task](run, tally)
        except UploadError as error:
            tally.break_off(redact(error.detail))
        except BrokerError as error:
            tally.break_off(redact(str(error)))
        except TimeoutError:
            tally.break_off("a step of it took too long")
        except Exception as error:  # noqa: BLE001 a defect in one task must not keep the others from running
            _log.exception("unexpected error", task=task)
            tally.break_off(f"unexpected: {type(error).__name__}")
        if not run.is_rehearsal and task != "orphans":  # which removes nothing
            self.meter.cleaned(task, tally.count, tally.size_bytes)
        return tally

    def _tell(self, data: CleanupCompletedData) -> None:
        outcome: CleanupOutcome = "failed" if data.errors else "rehearsed" if data.dry_run else "succeeded"
        self.meter.cleanup_ended(outcome)
        facts = data.model_dump(exclude={"cause_id", "errors"})
        (_log.warning if data.errors else _log.info)("cleanup " + outcome, errors=list(data.errors), **facts)
