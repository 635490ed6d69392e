"""Whether deliveries are taken at all."""

from typing import Final, Protocol

import structlog

_log = structlog.get_logger()

_NEEDED: Final = ("database", "storage", "temp_dir")
"""What every event needs. Not the broker: one that is away delivers nothing, and while one blocks publishers, what is
in work is bounded by the prefetch."""


class Lamp(Protocol):
    """Shows something about a dependency."""

    def __call__(self, dependency: str, *, up: bool) -> None:
        """The lamp of the dependency shows `up`."""


class Valve(Protocol):
    """Lets deliveries come."""

    def __call__(self, *, paused: bool) -> None:
        """They come, or are paused."""


class Intake:
    """Deliveries are paused while a dependency that they need fails its own probe.

    What is in work meanwhile meets the same trouble, and goes back once, by a hold.
    """

    def __init__(self, lamp: Lamp) -> None:
        self._lamp = lamp
        self._valve: Valve | None = None
        self._away: set[str] = set()
        for dependency in _NEEDED:
            lamp(dependency, up=False)

    def control(self, valve: Valve) -> None:
        """What lets deliveries come is turned from now on."""
        self._valve = valve

    def heed(self, dependency: str, *, up: bool) -> None:
        """Deliveries come or are paused by what the dependency answered to its probe."""
        if dependency not in _NEEDED or up is (dependency not in self._away):
            return
        (self._away.discard if up else self._away.add)(dependency)
        self._lamp(dependency, up=not up)
        if self._valve is not None:
            self._valve(paused=bool(self._away))
        _log.info("intake is paused" if self._away else "intake is open", waits_for=sorted(self._away))

    def problems(self) -> dict[str, str]:
        """One sentence, if deliveries are paused."""
        return (
            {"intake": f"paused until there is an answer from: {', '.join(sorted(self._away))}"} if self._away else {}
        )
