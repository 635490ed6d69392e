"""What is wrong is told before any work begins: in one sentence, with exit code 2, and without a secret."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote, urlsplit, urlunsplit

import click
import pytest
from click.testing import CliRunner

from consumer.cli import cli as consumer
from producer.cli import cli as producer
from sandbox.__main__ import main as sandbox
from sandbox.postgres import ask
from sandbox.process import eventually
from tests.e2e.background import Background
from tests.e2e.conftest import StartWorker
from tests.e2e.product_process import WorkerProcess
from tests.faults.proxy import Proxy

CANARY = "canary-7f3a91"
SECRETS = ("OSS_ACCESS_KEY", "OSS_SECRET", "OSS_SESSION_TOKEN", "JWT_SECRET")

Says = Callable[..., list[str]]


@pytest.fixture
def says(settings: dict[str, str], tmp_path: Path) -> Says:
    """Starts a worker with every secret set to a canary, and these settings (empty: unset), which it refuses.

    Returns the sentences that it says; it ended with exit code 2, and showed neither a secret nor a traceback.
    """

    def start(changes: Mapping[str, str], *, fresh: bool = False) -> list[str]:
        env = {**settings, **dict.fromkeys(SECRETS, CANARY), **changes}
        given = {name: value for name, value in env.items() if value}
        worker = WorkerProcess(given, tmp_path / "refused", fresh=fresh)
        exit_code = worker.await_end()
        assert CANARY not in worker.log
        assert "Traceback" not in worker.log
        assert exit_code == 2, worker.log
        return [line for line in worker.log.splitlines() if not line.startswith("{")]

    return start


def with_login(url: str, user: str, password: str = CANARY) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{quote(password)}@{parts.hostname}:{parts.port}"))


@pytest.fixture
def powerless(database_url: str) -> Iterator[str]:
    """A database user who may connect and nothing else; the URL with that user's login."""
    name = f"powerless_{token_hex(4)}"
    ask(database_url, f"CREATE ROLE {name} LOGIN PASSWORD '{CANARY}'")
    ask(database_url, "REVOKE CREATE ON SCHEMA public FROM public")
    yield with_login(database_url, name)
    ask(database_url, f"DROP ROLE {name}")


@pytest.mark.real
def test_missing_oss_settings_are_all_named_in_one_sentence(says: Says) -> None:
    sentence = "OSS configuration is incomplete: set OSS_BUCKET, OSS_SECRET (see .env.example)"
    assert says({"OSS_BUCKET": "", "OSS_SECRET": ""}, fresh=True) == [f"image-uploads: {sentence}"]


@pytest.mark.real
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"DATABASE_URL": f"mysql://root:{CANARY}@localhost/images"}, "DATABASE_URL must start with postgresql://"),
        ({"DATABASE_URL": f"postgresql://postgres:{CANARY}@localhost:port/images"}, "DATABASE_URL"),
        ({"DATABASE_URL": f"postgresql://postgres:{CANARY}@[::1/images"}, "DATABASE_URL"),
        ({"AMQP_URL": f"http://guest:{CANARY}@localhost/"}, "AMQP_URL must start with amqp://"),
        ({"AMQP_URL": f"amqp://guest:{CANARY}@localhost:port/"}, "AMQP_URL"),
        ({"OSS_ENDPOINT": f"https://key:{CANARY}@oss.example.com/path"}, "OSS_ENDPOINT"),
        ({"PREFETCH": "many"}, "PREFETCH"),
        ({"RETRY_DELAYS_S": "5,1"}, "RETRY_DELAYS_S"),
        ({"SOURCE_ALLOWED_NETWORKS": "10.0.0.0/99"}, "SOURCE_ALLOWED_NETWORKS"),
        ({"TEMP_DIR": "/dev/null/temp"}, "TEMP_DIR"),
    ],
    ids=lambda value: "=".join(next(iter(value.items()))).replace(CANARY, "secret") if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_named_in_one_sentence(says: Says, changes: dict[str, str], words: str) -> None:
    (sentence,) = says(changes)
    assert sentence.startswith("image-uploads: ")
    assert words in sentence


@pytest.mark.real
def test_a_metrics_port_that_is_taken_is_told(says: Says) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        (sentence,) = says({"METRICS_PORT": port})
    assert f"127.0.0.1:{port} cannot be listened on" in sentence
    assert "METRICS_PORT" in sentence


@pytest.mark.real
def test_a_database_that_does_not_exist_is_told_with_the_command_that_makes_it(says: Says, database_url: str) -> None:
    (sentence,) = says({"DATABASE_URL": urlunsplit(urlsplit(database_url)._replace(path="/nowhere"))})
    assert "no such database" in sentence
    assert "createdb nowhere" in sentence


@pytest.mark.real
def test_a_database_user_without_rights_is_told_who_knows_what_to_grant(says: Says, powerless: str) -> None:
    (sentence,) = says({"DATABASE_URL": powerless})
    assert "permission denied" in sentence
    assert "`image-uploads check` prints the command that grants it" in sentence


@pytest.mark.real
def test_a_wrong_password_of_the_broker_is_told(says: Says, amqp_url: str) -> None:
    (sentence,) = says({"AMQP_URL": with_login(amqp_url, "guest")})
    assert "refuses the login" in sentence
    assert "AMQP_URL" in sentence


@pytest.mark.real
def test_a_table_that_something_else_made_is_refused_and_left_as_it_is(says: Says, database_url: str) -> None:
    ask(database_url, 'CREATE TABLE job_outputs (id serial PRIMARY KEY, "jobId" text, "imageUrl" text)')
    ask(database_url, "INSERT INTO job_outputs (\"jobId\") VALUES ('of-the-older-backend')")
    (sentence,) = says({})
    for column in ("imageUrl", "eventSource", "ossKey", "crc64", "deletedAt"):
        assert column in sentence
    assert ask(database_url, 'SELECT "jobId" FROM job_outputs') == "of-the-older-backend"
    assert ask(database_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 1


@pytest.mark.real
@pytest.mark.parametrize(
    ("setting", "server", "name"),
    [("AMQP_URL", "RabbitMQ", "broker"), ("DATABASE_URL", "PostgreSQL", "database")],
    ids=["RabbitMQ", "PostgreSQL"],
)
def test_a_worker_waits_for_a_server_that_is_away_and_works_once_it_is_there(
    setting: str,
    server: str,
    name: str,
    settings: dict[str, str],
    start_worker: StartWorker,
    servers: Background,
) -> None:
    proxy = Proxy(settings[setting])
    worker = start_worker(**{setting: proxy.url()})
    assert eventually(lambda: bool(worker.lines(f"waiting for {server}")), 30), worker.log
    assert worker.get("/healthz")[0] == 200
    status, body = worker.get("/readyz")
    assert status == 503
    servers.run(proxy.up())
    try:
        worker.await_ready()
        assert worker.stop() == 0
    finally:
        servers.run(proxy.down())
    assert name in json.loads(body)["problems"]


@pytest.mark.real
def test_a_worker_reads_the_env_file_in_its_working_directory(
    settings: dict[str, str], tmp_path: Path, start_worker: StartWorker
) -> None:
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    worker = WorkerProcess({}, directory, fresh=True)
    try:
        worker.await_ready()
    finally:
        assert worker.stop() == 0


def commands(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    yield names
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, *names, name)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        pytest.param(program, words, id=" ".join((name, *words)))
        for name, program in {"image-uploads": consumer, "image-uploads-producer": producer, "sandbox": sandbox}.items()
        for words in commands(program)
    ],
)
def test_help_is_everywhere_and_has_an_example(program: click.Command, words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(program, [*words, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.stdout
