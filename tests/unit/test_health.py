import asyncio

import pytest

from consumer.runtime import health as health_module
from consumer.runtime.health import Health


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

    health = Health(lamp, ["storage"])
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
