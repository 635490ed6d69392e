"""Whether every neighbour answered lately."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol, TypeAlias

import structlog

from consumer.core.redact import redact

Probe: TypeAlias = Callable[[], Awaitable[None]]

_INTERVAL_S: Final = 15.0
_INTERVAL_IN_TROUBLE_S: Final = 1.0
_TIMEOUT_S: Final = 10.0

_log = structlog.get_logger()


class Lamp(Protocol):
    """Shows whether a dependency is up."""

    def __call__(self, dependency: str, *, up: bool) -> None:
        """The lamp of the dependency shows `up`."""


class Health:
    """Probes each dependency every 15 seconds, every second while it is away, and remembers what is wrong."""

    def __init__(self, lamp: Lamp, dependencies: Iterable[str]) -> None:
        self._lamp = lamp
        self._probes: dict[str, Probe] = {}
        self._problems = {"worker": "not working", **dict.fromkeys(dependencies, "has not answered yet")}

    def watch(self, dependency: str, probe: Probe) -> None:
        """The dependency is asked from now on."""
        self._probes[dependency] = probe

    def problems(self) -> dict[str, str]:
        """One sentence for each dependency that did not answer when it was last asked."""
        return dict(self._problems)

    async def run(self) -> None:
        """Probes until it is cancelled; only meanwhile does the worker count as working."""
        self._problems.pop("worker", None)
        try:
            async with asyncio.TaskGroup() as group:
                for dependency, probe in self._probes.items():
                    group.create_task(self._watch(dependency, probe))
        finally:
            self._problems["worker"] = "stopping"

    async def _watch(self, dependency: str, probe: Probe) -> None:
        while True:
            await self._ask(dependency, probe)
            await asyncio.sleep(_INTERVAL_IN_TROUBLE_S if dependency in self._problems else _INTERVAL_S)

    async def _ask(self, dependency: str, probe: Probe) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await probe()
        except Exception as error:  # noqa: BLE001 whatever a probe raises is its answer
            problem = redact(str(error) or type(error).__name__)
            if self._problems.get(dependency) != problem:
                _log.warning("a dependency does not answer", dependency=dependency, error=problem)
            self._problems[dependency] = problem
        else:
            self._problems.pop(dependency, None)
        self._lamp(dependency, up=dependency not in self._problems)
