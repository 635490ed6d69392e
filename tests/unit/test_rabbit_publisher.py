import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.adapters.rabbit_publisher import RabbitPublisher
from consumer.core.announcements import completed
from consumer.core.errors import BrokerError, StartError
from tests import samples

EVENT = completed(samples.output(samples.event()), "https://cdn.test/x.png")


def publisher(monkeypatch: pytest.MonkeyPatch, publish: Any) -> RabbitPublisher:
    async def exchange(_name: str) -> Any:
        return SimpleNamespace(publish=publish)

    made = RabbitPublisher("amqp://guest:CANARY@broker/", "test")
    monkeypatch.setattr(made, "_exchange", exchange)
    return made


async def test_a_connection_that_falls_silent_is_a_refusal_and_not_the_end_of_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def publish(*_: Any, **__: Any) -> None:
        raise asyncio.CancelledError  # what aiormq raises in whoever waits for a confirm

    with pytest.raises(BrokerError, match="fell silent") as caught:
        await publisher(monkeypatch, publish).announce(EVENT)
    assert "CANARY" not in str(caught.value)


async def test_a_task_that_is_cancelled_stays_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    started = asyncio.Event()

    async def publish(*_: Any, **__: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(publisher(monkeypatch, publish).announce(EVENT))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError("reset"),
        RuntimeError("writer is closed"),
        StartError("the login is refused, since a minute ago"),
    ],
)
async def test_whatever_else_happens_to_a_connection_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def publish(*_: Any, **__: Any) -> None:
        raise error

    with pytest.raises(BrokerError):
        await publisher(monkeypatch, publish).announce(EVENT)
