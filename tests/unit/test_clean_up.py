"""A run of the cleanup: whatever becomes of one task, the others run."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from consumer.core.cleanup import Run, Tally
from consumer.core.errors import BrokerError, DependencyError
from consumer.handlers import clean_up
from consumer.handlers.clean_up import CleanUp, Task
from schemas.events import CleanupCompletedData, CleanupRequested, CleanupRequestedData, CleanupTask
from schemas.reasons import Reason
from tests.fakes import FakeCleanupMeter, Journal

AT_ONCE = 0.05


class House:
    def __init__(self) -> None:
        self.journal = Journal()
        self.meter = FakeCleanupMeter()
        self.runs: dict[str, Run] = {}
        self.tasks: dict[CleanupTask, Task] = {"temp": self.temp, "expired": self.expired, "orphans": self.orphans}

    async def temp(self, run: Run, tally: Tally) -> None:
        self._one("temp", run, tally)

    async def expired(self, run: Run, tally: Tally) -> None:
        self._one("expired", run, tally)

    async def orphans(self, run: Run, tally: Tally) -> None:
        self._one("orphans", run, tally)

    def _one(self, name: CleanupTask, run: Run, tally: Tally) -> None:
        tally.add(7)
        self.runs[name] = run
        self.journal.step(name)

    async def clean(self, *tasks: CleanupTask, dry_run: bool = False, budget_s: float = 600) -> CleanupCompletedData:
        data = CleanupRequestedData(tasks=tasks or ("temp", "expired", "orphans"), dry_run=dry_run)
        request = CleanupRequested(id="now", source="/operators/test", time=datetime.now(UTC), data=data)
        completed = await CleanUp(self.tasks, self.meter, budget_s=budget_s, grace_s=AT_ONCE)(request)
        assert completed.data.cause_id == "now"
        return completed.data


@pytest.fixture
def house() -> House:
    return House()


async def test_all_tasks_run_one_after_the_other(house: House) -> None:
    done = await house.clean()
    assert house.journal == ["temp", "expired", "orphans"]
    assert [(name, result.count, result.bytes) for name, result in done.tasks.items()] == [
        ("temp", 1, 7),
        ("expired", 1, 7),
        ("orphans", 1, 7),
    ]
    assert (done.errors, done.dry_run) == ((), False)
    assert house.meter.ended == ["succeeded"]
    assert house.meter.removed == {"temp": (1, 7), "expired": (1, 7)}  # orphans stay where they are


async def test_only_the_tasks_that_were_asked_for_run(house: House) -> None:
    done = await house.clean("orphans", "temp")
    assert house.journal == ["temp", "orphans"]
    assert list(done.tasks) == ["temp", "orphans"]


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (DependencyError("storage", Reason.STORAGE_UNAVAILABLE, "OSS answered 503"), "expired: OSS answered 503"),
        (BrokerError("no confirmation"), "expired: no confirmation"),
        (RuntimeError("a secret of the library's"), "expired: unexpected: RuntimeError"),
    ],
)
async def test_one_that_fails_leaves_the_others_running(house: House, trouble: Exception, says: str) -> None:
    house.journal.trouble["expired"] = trouble
    done = await house.clean()
    assert house.journal == ["temp", "orphans"]
    assert done.errors == (says,)
    assert {task: result.complete for task, result in done.tasks.items() if not result.complete} == {"expired": False}
    assert done.tasks["expired"].count == 1  # what it had done before
    assert house.meter.removed["expired"] == (1, 7)
    assert house.meter.ended == ["failed"]


async def test_one_that_hangs_is_cut_off_behind_its_share_and_leaves_the_others_running(house: House) -> None:
    async def hang(_run: Run, tally: Tally) -> None:
        tally.add(7)
        await asyncio.Event().wait()

    house.tasks["temp"] = hang
    async with asyncio.timeout(10):
        done = await house.clean(budget_s=3 * AT_ONCE)
    assert house.journal == ["expired", "orphans"]
    assert done.errors == ("temp: a step of it took too long",)
    assert done.tasks["temp"].count == 1


@pytest.mark.parametrize(
    ("thorough", "shares"),
    [
        (("temp", "expired", "orphans"), {"temp": 200, "expired": 200, "orphans": 200}),
        (("expired", "orphans"), {"expired": 300, "orphans": 300}),
        (("temp", "orphans"), {"temp": 200, "orphans": 400}),
    ],
)
async def test_each_has_an_even_share_of_the_time_that_is_left(
    house: House, monkeypatch: pytest.MonkeyPatch, thorough: tuple[CleanupTask, ...], shares: dict[CleanupTask, int]
) -> None:
    now, used = 0, dict.fromkeys(thorough, 0)
    monkeypatch.setattr(clean_up, "time", SimpleNamespace(monotonic=lambda: now))

    def using_it_up(name: CleanupTask) -> Task:
        async def use_it_up(run: Run, _tally: Tally) -> None:
            nonlocal now
            while not run.is_over():
                now += 1
                used[name] += 1

        return use_it_up

    for name in thorough:
        house.tasks[name] = using_it_up(name)
    done = await house.clean(budget_s=600)
    assert used == shares
    assert done.duration_s == sum(shares.values())


async def test_a_rehearsal_is_told_so_and_counts_as_one(house: House) -> None:
    done = await house.clean(dry_run=True)
    assert all(run.is_rehearsal for run in house.runs.values())
    assert done.dry_run
    assert house.meter.ended == ["rehearsed"]
    assert not house.meter.removed


async def test_a_run_that_is_cancelled_ends_at_once(house: House) -> None:
    begun = asyncio.Event()

    async def hang(_run: Run, _tally: Tally) -> None:
        begun.set()
        await asyncio.Event().wait()

    house.tasks["temp"] = hang
    running = asyncio.create_task(house.clean())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not house.journal
    assert not house.meter.ended


async def test_a_request_that_names_no_task_means_all(house: House) -> None:
    request = CleanupRequested(
        id="now", source="/operators/test", time=datetime.now(UTC), data=CleanupRequestedData(tasks=())
    )
    await CleanUp(house.tasks, house.meter)(request)
    assert house.journal == ["temp", "expired", "orphans"]
