import asyncio

import pytest

from consumer.runtime import health as health_module
from consumer.runtime.health import Health
from consumer.runtime.intake import Intake


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_INTERVAL_S", 0)
    monkeypatch.setattr(health_module, "_INTERVAL_IN_TROUBLE_S", 0)


async def test_a_worker_is_ready_only_while_it_works_and_every_dependency_answers() -> None:
    lamps: dict[str, bool] = {}
    turned = asyncio.Event()

    def lamp(dependency: str, *, up: bool) -> None:
        lamps[dependency] = up
        turned.set()

    trouble: list[Exception] = []

    async def probe() -> None:
        if trouble:
            raise trouble[0]

    async def until(up: bool) -> None:  # noqa: FBT001 reads as a sentence
        while lamps.get("storage") is not up:
            turned.clear()
            await turned.wait()

    health = Health(["storage"], lamp)
    health.watch("storage", probe)
    assert health.problems() == {"worker": "not working", "storage": "has not answered yet"}
    task = asyncio.create_task(health.run())
    await until(up=True)
    assert health.problems() == {}
    trouble.append(OSError("https://oss/?Signature=CANARY refused"))
    await until(up=False)
    assert health.problems() == {"storage": "https://oss/ refused"}
    trouble.clear()
    await until(up=True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert health.problems() == {"worker": "stopping"}


async def test_those_who_want_to_know_at_one_time_share_a_probe_that_began_after_they_asked() -> None:
    gate = asyncio.Event()
    begun = asyncio.Event()
    probes = 0

    async def probe() -> None:
        nonlocal probes
        probes += 1
        begun.set()
        await gate.wait()

    health = Health(["storage"])
    health.watch("storage", probe)
    first = asyncio.create_task(health.answers("storage"))
    await begun.wait()
    later = [asyncio.create_task(health.answers("storage")) for _ in range(50)]
    await asyncio.sleep(0)
    gate.set()
    assert await first
    assert all(await asyncio.gather(*later))
    assert probes == 2


async def test_who_gives_up_waiting_for_a_probe_leaves_no_answer_for_others() -> None:
    begun = asyncio.Event()
    probes = 0

    async def probe() -> None:
        nonlocal probes
        probes += 1
        begun.set()
        if probes == 1:
            await asyncio.Event().wait()

    health = Health(["storage"])
    health.watch("storage", probe)
    first = asyncio.create_task(health.answers("storage"))
    await begun.wait()
    second = asyncio.create_task(health.answers("storage"))
    first.cancel()
    assert await second
    assert probes == 2


async def test_trouble_that_somebody_else_came_upon_is_asked_after_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "_INTERVAL_S", 3600)
    answers = [True, False, False, True]
    asked: asyncio.Queue[bool] = asyncio.Queue()

    async def probe() -> None:
        asked.put_nowait(answers[0])
        if not answers.pop(0):
            raise OSError("away")

    health = Health(["storage"])
    health.watch("storage", probe)
    task = asyncio.create_task(health.run())
    assert await asked.get()
    assert not await health.answers("storage")
    assert [await asyncio.wait_for(asked.get(), 30) for _ in range(3)] == [False, False, True]
    task.cancel()
    await asyncio.wait((task,))


async def test_deliveries_are_paused_while_a_dependency_that_they_need_fails_its_probe() -> None:
    turns: list[bool] = []
    lamps: dict[str, bool] = {}

    def valve(*, paused: bool) -> None:
        turns.append(paused)

    def lamp(dependency: str, *, up: bool) -> None:
        lamps[dependency] = up

    intake = Intake(lamp)
    intake.control(valve)
    assert lamps == {"database": False, "storage": False, "temp_dir": False}

    intake.heed("storage", up=True)
    intake.heed("broker", up=False)
    assert (turns, intake.problems()) == ([], {})
    intake.heed("storage", up=False)
    intake.heed("storage", up=False)
    intake.heed("database", up=False)
    assert lamps == {"database": True, "storage": True, "temp_dir": False}
    assert intake.problems() == {"intake": "paused until there is an answer from: database, storage"}
    intake.heed("storage", up=True)
    assert turns[-1] is True
    intake.heed("database", up=True)
    assert turns[-1] is False
    assert turns.count(False) == 1
    assert (set(lamps.values()), intake.problems()) == ({False}, {})


@pytest.mark.parametrize("defect", [OSError("away"), ZeroDivisionError("a defect"), None])
async def test_a_probe_that_raises_anything_or_never_ends_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, defect: Exception | None
) -> None:
    monkeypatch.setattr(health_module, "_TIMEOUT_S", 0.01)

    async def probe() -> None:
        if defect:
            raise defect
        await asyncio.Event().wait()

    health = Health(["storage"])
    health.watch("storage", probe)
    async with asyncio.timeout(10):
        assert not await health.answers("storage")
