"""A bucket is compared with its rows in the memory of a page: the campaign, as large as every run can afford."""

import pytest

from tests.faults import inventory  # noqa: F401 brings its campaign
from tests.faults.campaign import CAMPAIGNS
from tests.faults.services import Services

pytestmark = pytest.mark.real


async def test_exactly_the_known_differences_are_told_in_bounded_memory(services: Services) -> None:
    campaign = CAMPAIGNS["inventory"]
    verdict = await campaign.run(services, **campaign.small)
    assert verdict.violations == []
    assert verdict.figures["differences"] == 400
    assert verdict.figures["MB idle"] > 0
