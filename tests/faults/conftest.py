"""Private services that these tests may stop and kill."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.services import Services
from tests.named_servers import postgres_version, rabbitmq_version


@pytest.fixture(scope="session")
def services(services_dir: Path, services_used: set[str]) -> Iterator[Services]:
    """RabbitMQ and PostgreSQL for all campaigns; each has a virtual host and a database of its own."""
    with Services.opened(services_dir) as opened:
        services_used |= {rabbitmq_version(opened.rabbitmq.url), postgres_version(opened.postgres.url)}
        yield opened
