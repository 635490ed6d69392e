"""Whether every neighbour answered lately."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, TypeAlias

import structlog

from consumer.core.redact import redact
from consumer.runtime.intake import Lamp

Probe: TypeAlias = Callable[[], Awaitable[None]]

_INTERVAL_S: Final = 15.0
_INTERVAL_IN_TROUBLE_S: Final = 1.0
_TIMEOUT_S: Final = 5.0  # with the interval in trouble, how late an end of the trouble may be noticed

_log = structlog.get_logger()


class Health:
    """Probes each dependency every 15 seconds, every second while it is away, and remembers what is wrong."""

    def __init__(self, dependencies: Iterable[str], *lamps: Lamp) -> None:
        self._lamps = lamps
        self._probes: dict[str, Probe] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._troubled: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._asked_at: defaultdict[str, float] = defaultdict(float)
        self._problems = {"worker": "not working", **dict.fromkeys(dependencies, "has not answered yet")}

    def watch(self, dependency: str, probe: Probe) -> None:
        """The dependency is asked from now on."""
        self._probes[dependency] = probe

    def problems(self) -> dict[str, str]:
        """One sentence for each dependency that did not answer when it was last asked."""
        return dict(self._problems)

    async def answers(self, dependency: str) -> bool:
        """Whether the dependency answers a probe that begins now; those who want to know at one time share it."""
        now = time.monotonic()
        async with self._turns[dependency]:
            if self._asked_at[dependency] <= now:
                await self._ask(dependency)
        return dependency not in self._problems

    async def run(self) -> None:
        """Probes until it is cancelled; only meanwhile does the worker count as working."""
        self._problems.pop("worker", None)
        try:
            async with asyncio.TaskGroup() as group:
                for dependency in self._probes:
                    group.create_task(self._watch(dependency))
        finally:
            self._problems["worker"] = "stopping"

    async def _watch(self, dependency: str) -> None:
        while True:
            if await self.answers(dependency):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_INTERVAL_S):
                        await self._troubled[dependency].wait()  # somebody else may be the first to come upon it
            await asyncio.sleep(_INTERVAL_IN_TROUBLE_S)

    async def _ask(self, dependency: str) -> None:
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._probes[dependency]()
        except Exception as error:  # noqa: BLE001 whatever a probe raises is its answer
            problem = redact(str(error) or type(error).__name__)
            if self._problems.get(dependency) != problem:
                _log.warning("a dependency does not answer", dependency=dependency, error=problem)
            self._problems[dependency] = problem
            self._troubled[dependency].set()
        else:
            self._problems.pop(dependency, None)
            self._troubled[dependency].clear()
        self._asked_at[dependency] = asked_at  # only now: who is cancelled in between has no answer for others
        for lamp in self._lamps:
            lamp(dependency, up=dependency not in self._problems)
