"""Private services start, stop, crash, come back with their data, and leave nothing behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aio_pika
import asyncpg
import pytest

from sandbox.lifeline import __name__ as lifeline
from sandbox.postgres import Postgres, ask
from sandbox.process import Process, eventually, is_free
from sandbox.rabbitmq import RabbitMQ
from sandbox.system import System
from tests.named_servers import Broker, with_path

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]


async def publish(url: str, body: bytes) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "classic"})
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue.name)


async def take(url: str) -> bytes:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        message = await (await channel.get_queue("kept")).get(no_ack=True)
        return message.body


async def test_every_virtual_host_is_another_one_and_takes_connections(
    amqp_vhost: Callable[[], str], rabbit_url: str, amqp_url: str
) -> None:
    urls = {amqp_vhost(), amqp_vhost(), rabbit_url, amqp_url}
    for url in urls:
        await publish(url, b"hello")
    assert len(urls) == 4


async def test_a_fresh_database_is_empty(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetch("SELECT * FROM pg_tables WHERE schemaname = 'public'") == []
    finally:
        await connection.close()


async def test_rabbitmq_keeps_its_virtual_hosts_messages_and_url_over_a_restart_and_a_crash(
    private_rabbit: Callable[[], RabbitMQ],
) -> None:
    rabbit = private_rabbit()
    url = rabbit.add_vhost("mine/ü")
    await publish(url, b"before the restart")
    rabbit.restart()
    assert await take(url) == b"before the restart"

    await publish(url, b"before the crash")
    rabbit.kill()
    assert not rabbit.running
    rabbit.start()
    assert await take(url) == b"before the crash"
    assert rabbit.vhost_url("mine/ü") == url

    _, mapper = rabbit.processes
    mapper.end(signal.SIGKILL)
    with pytest.raises(subprocess.CalledProcessError):
        rabbit.ctl("status")
    assert is_free(rabbit.ports["epmd"]), "Erlang started a port mapper that nobody would stop"


def test_postgres_keeps_its_rows_and_url_over_a_restart_and_a_crash(
    private_postgres: Callable[[], Postgres],
) -> None:
    postgres = private_postgres()
    url = postgres.add_database("mine")
    ask(url, "CREATE TABLE rows AS SELECT 1 AS n")
    postgres.restart()
    ask(url, "INSERT INTO rows VALUES (2)")
    postgres.kill()
    assert not postgres.running
    postgres.start()
    assert ask(url, "SELECT sum(n) FROM rows") == 3
    assert postgres.database_url("mine") == url


async def test_several_run_side_by_side_and_share_nothing(
    private_rabbit: Callable[[], RabbitMQ],
    broker: Broker,
    private_postgres: Callable[[], Postgres],
    database_server: str,
) -> None:
    rabbit = private_rabbit()
    await publish(rabbit.add_vhost("only-here"), b"hello")
    assert "only-here" in rabbit.ctl("list_vhosts")
    with pytest.raises(aio_pika.exceptions.AMQPError):
        await publish(with_path(broker.url, "only-here"), b"hello")

    private_postgres().add_database("only_here")
    assert ask(database_server, "SELECT count(*) FROM pg_database WHERE datname = 'only_here'") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lets PostgreSQL run as somebody else")
def test_postgres_keeps_its_data_elsewhere_when_its_user_may_not_enter_the_directory(services_dir: Path) -> None:
    closed = services_dir / "closed"
    closed.mkdir(parents=True, mode=0o700)
    postgres = Postgres(closed / "postgres")
    try:
        with postgres:
            postgres.add_database("mine")
        assert postgres.data.parent != postgres.directory
        assert str(postgres.data) in (postgres.directory / "data-is-elsewhere.txt").read_text()
        shutil.rmtree(postgres.directory)
        with postgres:
            assert ask(postgres.url, "SELECT count(*) FROM pg_database WHERE datname = 'mine'") == 0
    finally:
        postgres.remove()
    assert not postgres.data.exists()


def test_a_port_that_somebody_else_was_quicker_to_take_is_replaced(
    services_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody_else:
        taken = somebody_else.getsockname()[1]
        offered = iter([taken, *(port for port in range(19_000, 19_020))])
        monkeypatch.setattr("sandbox.service.free_port", lambda: next(offered))
        postgres = Postgres(services_dir / "postgres-late")
        with postgres:
            assert postgres.ports["postgres"] != taken
            assert ask(postgres.url, "SELECT 1") == 1
    postgres.remove()


def test_a_service_dies_with_the_process_that_started_it(services_dir: Path) -> None:
    directory = services_dir / "postgres-orphaned"
    program = (
        "import os, signal, sys; from pathlib import Path; from sandbox.postgres import Postgres\n"
        "Postgres(Path(sys.argv[1])).start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, directory], check=False)
    orphan = Postgres(directory)
    assert done.returncode == -signal.SIGKILL
    assert eventually(lambda: not orphan.running, timeout_s=10), f"{lifeline} did not kill it"
    orphan.remove()


def test_a_program_that_does_not_start_shows_the_end_of_its_log(private_postgres: Callable[[], Postgres]) -> None:
    postgres = private_postgres()
    postgres.stop()
    (postgres.data / "postgresql.conf").write_text("no_such_setting = on\n")
    with pytest.raises(Exception, match='unrecognized configuration parameter "no_such_setting"'):
        postgres.start()
    assert not postgres.processes


def sandbox(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sandbox", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )


async def test_up_prints_what_a_shell_can_read_and_down_leaves_no_process(services_dir: Path, tmp_path: Path) -> None:
    directory = services_dir / "a sandbox"
    canaries = {"AMQP_URL": "amqp://canary:1/", "DATABASE_URL": "postgresql://canary:1/", "OSS_BUCKET": "canary"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in canaries.items()))
    system = System(directory, attached=False)
    try:
        first = sandbox("up", "--dir", directory, cwd=tmp_path, **canaries)
        settings = as_a_shell_reads_it(first.stdout)
        assert "canary" not in first.stdout + first.stderr
        assert settings == system.environment()
        assert system.temp_dir.is_dir()
        await publish(settings["AMQP_URL"], b"kept")
        ask(settings["DATABASE_URL"], "CREATE TABLE rows AS SELECT 1 AS n")
        processes = everything_of(system)

        again = sandbox("up", "--dir", directory, cwd=tmp_path)
        assert again.stdout == first.stdout
        assert everything_of(system) == processes

        system.postgres.kill()
        mended = sandbox("up", "--dir", directory, cwd=tmp_path)
        assert mended.stdout == first.stdout
        assert len(set(everything_of(system)) & set(processes)) == 3, "only the dead one was started"
        assert await take(settings["AMQP_URL"]) == b"kept"
        assert ask(settings["DATABASE_URL"], "SELECT n FROM rows") == 1
        processes += everything_of(system)
    finally:
        down = sandbox("down", "--dir", directory, cwd=tmp_path)
        for service in (system.rabbitmq, system.object_store, system.postgres):
            service.remove()
    assert down.stdout == ""
    assert len(processes) == 8
    assert not any(process.alive for process in processes)


def everything_of(system: System) -> list[Process]:
    services = (system.rabbitmq, system.object_store, system.postgres)
    return [process for service in services for process in service.processes]


def as_a_shell_reads_it(lines: str) -> dict[str, str]:
    script = f"set -a; {lines}\nexec env -0"
    said = subprocess.run(
        ["sh", "-c", script], env={"PATH": os.environ["PATH"]}, check=True, capture_output=True
    ).stdout
    pairs = (pair.partition("=") for pair in said.decode().split("\0") if pair)
    return {name: value for name, _, value in pairs if name in lines}


def test_down_is_content_when_nothing_runs(tmp_path: Path) -> None:
    assert sandbox("down", "--dir", tmp_path / "never-was", cwd=tmp_path).stderr == ""
    assert not (tmp_path / "never-was").exists()
