"""A cluster that loses the node where everything is led from loses no event."""

import pytest

from tests.faults.leaders import cluster
from tests.faults.services import Services

pytestmark = pytest.mark.real


async def test_a_leader_that_is_killed_delays_and_loses_nothing_and_workers_start_without_it(
    services: Services,
) -> None:
    verdict = await cluster(services, kills=1)
    assert verdict.violations == []
    assert verdict.figures["stored"] > verdict.figures["failed"] > 0
    assert verdict.figures["longest standstill in s"] < 10
