"""Real servers for the tests, started when the first test asks for them; and no setting of the machine.

Private ones run under `.sandbox/test-<pid>/` and are gone afterwards; of the processes of a run (`pytest -n`) each has
its own. `TEST_AMQP_URL` (with `TEST_AMQP_MANAGEMENT_URL`) and `TEST_DATABASE_URL` name servers to use instead;
`private_rabbit` and `private_postgres` are private all the same.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from sandbox.postgres import Postgres, ask
from sandbox.process import Process
from sandbox.rabbitmq import RabbitMQ
from tests.named_servers import Broker, NamedBroker, postgres_version, rabbitmq_version, with_path

ROOT = Path(__file__).parent.parent
PRODUCT_SETTINGS = (
    "AMQP_",
    "API_",
    "CLEANUP_",
    "DATABASE_",
    "FEED_",
    "JWT_",
    "LOG_",
    "MAX_IMAGE_",
    "METRICS_",
    "OSS_",
    "PREFETCH",
    "RETENTION_",
    "RETRY_",
    "SOURCE_",
    "TEMP_",
)

USED = pytest.StashKey[set[str]]()


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(PRODUCT_SETTINGS)]:
            patch.delenv(name)
        patch.chdir(tmp_path_factory.mktemp("no-dot-env-here"))
        yield


@pytest.fixture(scope="session")
def services_used(pytestconfig: pytest.Config) -> set[str]:
    """Names of the real services that tests talked to; the last line of the run lists them."""
    return pytestconfig.stash.setdefault(USED, set())


@pytest.fixture(scope="session")
def services_dir() -> Iterator[Path]:
    """Where the private services of this session live; it is removed afterwards, as are those of killed sessions."""
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":  # else two would remove the same ones
        for left_over in (ROOT / ".sandbox").glob("test-*"):
            if Process.of(int(left_over.name.removeprefix("test-"))) is None:
                remove_services(left_over)
    directory = ROOT / ".sandbox" / f"test-{os.getpid()}"
    yield directory
    remove_services(directory)


def remove_services(directory: Path) -> None:
    """Nothing of the services in the directory is left, not even data that PostgreSQL had to keep elsewhere."""
    for postgres in directory.glob("*postgres*"):
        Postgres(postgres).remove()
    for rabbit in directory.glob("*rabbit*"):
        RabbitMQ(rabbit).remove()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def broker(services_dir: Path, services_used: set[str]) -> Iterator[Broker]:
    """The RabbitMQ server of the session: virtual hosts of one's own can be made on it."""
    if url := os.environ.get("TEST_AMQP_URL"):
        named = NamedBroker(url, os.environ.get("TEST_AMQP_MANAGEMENT_URL"))
        services_used.add(rabbitmq_version(url))
        yield named
        return
    with RabbitMQ(services_dir / "rabbitmq") as private:
        services_used.add(rabbitmq_version(private.url))
        yield private


@pytest.fixture(scope="session")
def rabbit_url(broker: Broker) -> Iterator[str]:
    """A virtual host that all tests of the session share."""
    yield from _fresh_vhost(broker)


@pytest.fixture
def amqp_url(broker: Broker) -> Iterator[str]:
    """An empty virtual host of this test's own."""
    yield from _fresh_vhost(broker)


@pytest.fixture
def amqp_vhost(broker: Broker) -> Iterator[Callable[[], str]]:
    """Makes an empty virtual host with each call, for tests that need several; all are gone after the test."""
    names: list[str] = []

    def add() -> str:
        names.append(f"test-{token_hex(6)}")
        return broker.add_vhost(names[-1])

    yield add
    for name in names:
        broker.delete_vhost(name)


def _fresh_vhost(broker: Broker) -> Iterator[str]:
    name = f"test-{token_hex(6)}"
    yield broker.add_vhost(name)
    broker.delete_vhost(name)


@pytest.fixture(scope="session")
def database_server(services_dir: Path, services_used: set[str]) -> Iterator[str]:
    """The URL of the PostgreSQL server of the session; tests take `database_url`."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        services_used.add(postgres_version(url))
        yield url
        return
    # Without fsync a database is made in a fifth of the time; only a power cut could tell the difference.
    with Postgres(services_dir / "postgres", settings={"fsync": "off"}) as private:
        services_used.add(postgres_version(private.url))
        yield private.url


@pytest.fixture
def database_url(database_server: str) -> Iterator[str]:
    """An empty database of this test's own."""
    name = f"test_{token_hex(6)}"
    ask(database_server, f"CREATE DATABASE {name} TEMPLATE template0")
    yield with_path(database_server, name)
    ask(database_server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def private_rabbit(services_dir: Path, services_used: set[str]) -> Iterator[Callable[[], RabbitMQ]]:
    """Starts a RabbitMQ node with each call, for tests that kill and restart it; all are gone after the test."""
    started: list[RabbitMQ] = []

    def start() -> RabbitMQ:
        rabbit = RabbitMQ(services_dir / f"rabbitmq-{next(_numbers)}")
        started.append(rabbit)
        rabbit.start()
        services_used.add(rabbitmq_version(rabbit.url))
        return rabbit

    yield start
    for rabbit in started:
        rabbit.remove()


@pytest.fixture
def private_postgres(services_dir: Path, services_used: set[str]) -> Iterator[Callable[[], Postgres]]:
    """Starts a PostgreSQL server with each call, for tests that kill and restart it; all are gone after the test."""
    started: list[Postgres] = []

    def start() -> Postgres:
        postgres = Postgres(services_dir / f"postgres-{next(_numbers)}", settings={"fsync": "off"})
        started.append(postgres)
        postgres.start()
        services_used.add(postgres_version(postgres.url))
        return postgres

    yield start
    for postgres in started:
        postgres.remove()


_numbers = count(1)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """All names of the services that this process used are known to whoever prints them."""
    used = session.config.stash.setdefault(USED, set())
    if "sandbox.oss" in sys.modules:  # needs no fixture of this file: its tests run it in their own process
        used.add("OSS-protocol server")
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:  # one of several processes: another one prints
        output["services used"] = sorted(used)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What one of several processes used is known to the one that prints; one that crashed has told nothing."""
    used: Iterable[str] = getattr(node, "workeroutput", {}).get("services used", ())
    node.config.stash.setdefault(USED, set()).update(used)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The run ends with how many tests had the real thing in front of them."""
    passed = [report for report in terminalreporter.getreports("passed") if "real" in report.keywords]
    if passed:
        used: set[str] = config.stash[USED]
        services = ", ".join(sorted(used, reverse=True))
        terminalreporter.write_line(f"{len(passed)} tests ran against real services ({services})")
