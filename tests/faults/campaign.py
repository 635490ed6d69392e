"""Campaigns: each does its worst to a world of its own, and ends with the ledger's verdict."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import signature
from typing import Final, TypeAlias

from tests.faults.ledger import Verdict
from tests.faults.services import Services

Run: TypeAlias = Callable[..., Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Campaign:
    """One of them; its sizes are the keyword arguments of its function."""

    name: str
    _run: Run
    _small: dict[str, int]
    on_request: bool = False
    """Whether it is carried out only by name."""

    @property
    def sizes(self) -> dict[str, int]:
        """What it takes to be a proof."""
        return {
            name: parameter.default
            for name, parameter in signature(self._run).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }

    @property
    def small(self) -> dict[str, int]:
        """What every run of the tests can afford."""
        return self.sizes | self._small

    async def run(self, services: Services, **sizes: int) -> Verdict:
        """It was carried out, in these sizes."""
        return await self._run(services, **sizes)


CAMPAIGNS: Final[dict[str, Campaign]] = {}


def campaign(*, on_request: bool = False, **small: int) -> Callable[[Run], Run]:
    """The function is a campaign under its own name; `small` are the sizes of its run among the tests."""

    def register(run: Run) -> Run:
        name = run.__name__.replace("_", "-")
        CAMPAIGNS[name] = Campaign(name, run, small, on_request)
        return run

    return register
