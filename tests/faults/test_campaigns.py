"""Nothing is lost: the campaigns of `make faults`, as many of them, and as large, as every run can afford."""

import pytest

from tests.faults import crashes, crossings, expiry, links, outages  # noqa: F401 each brings its campaigns
from tests.faults.campaign import CAMPAIGNS
from tests.faults.services import Services

pytestmark = pytest.mark.real


async def figures_of(name: str, services: Services) -> dict[str, float]:
    """The figures of a small run; the promise was kept in it."""
    campaign = CAMPAIGNS[name]
    verdict = await campaign.run(services, **campaign.small)
    assert verdict.violations == []
    assert verdict.figures["stored"] > verdict.figures["failed"] > 0
    return verdict.figures


async def test_thirty_kills_lose_and_double_nothing(services: Services) -> None:
    figures = await figures_of("kills", services)
    assert figures["events"] == 1500
    assert figures["deliveries in work when killed"] >= 30


async def test_a_kill_at_any_point_of_a_messages_way_changes_nothing_about_its_end(services: Services) -> None:
    figures = await figures_of("points", services)
    assert figures["crossings"] >= 60


async def test_an_event_that_kills_its_workers_takes_no_other_along(services: Services) -> None:
    figures = await figures_of("crash-loop", services)
    assert figures["crashes"] > 1


async def test_a_store_that_is_away_for_longer_than_the_ladder_fails_nothing(services: Services) -> None:
    await figures_of("oss-outage", services)


async def test_no_fault_of_any_link_loses_anything_or_costs_an_attempt(services: Services) -> None:
    figures = await figures_of("links", services)
    assert figures["faults"] == 27


async def test_what_is_due_goes_and_nothing_else_whoever_is_killed_on_the_way(services: Services) -> None:
    figures = await figures_of("expiry", services)
    assert (figures["due"], figures["not due"]) == (2000, 200)
    assert figures["kills"] > 0
