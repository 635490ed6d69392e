"""The command line of the consumer."""

import asyncio
from collections.abc import Coroutine
from importlib.metadata import version
from typing import Any, TypeVar

import click

from consumer import app, cli_operate, cli_outputs
from consumer.check import checklist
from consumer.settings import DeclareSettings, WorkerSettings
from schemas import logs
from schemas.environment import DatabaseSettings, LogSettings, Settings, load

Result = TypeVar("Result")


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: image-uploads worker")
@click.version_option(version("image-uploads-worker"), prog_name="image-uploads")
def cli() -> None:
    """Turns the images of AI generators into durable objects, rows and events."""


@cli.command(epilog="Example: OSS_BUCKET=… OSS_REGION=… OSS_ACCESS_KEY=… OSS_SECRET=… image-uploads worker")
def worker() -> None:
    """Work off image.generated until SIGTERM.

    What was begun is finished first.
    """
    settings = _load(WorkerSettings)
    raise SystemExit(_run(app.work(settings)))


@cli.command(epilog="Example: AMQP_URL=amqp://user:password@broker/ image-uploads declare")
def declare() -> None:
    """Make the exchange, queues and bindings.

    A worker does so at start.
    """
    _run(app.declare(_load(DeclareSettings)))
    click.echo("exchange, queues and bindings are in place")


@cli.command(epilog="Example: DATABASE_URL=postgresql://user:password@db/images image-uploads migrate")
def migrate() -> None:
    """Make the tables.

    A worker does so at start.
    """
    for file in _run(app.migrate(_load(DatabaseSettings))):
        click.echo(f"applied {file}")
    click.echo("the tables are in place")


@cli.command(epilog="Example: image-uploads check --roundtrip")
@click.option("--roundtrip", is_flag=True, help="Send one image through a running worker, and look at all its traces.")
@click.option("--timeout", "timeout_s", default=30.0, show_default=True, help="Seconds that the roundtrip may take.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of the findings.")
def check(*, roundtrip: bool, timeout_s: float, as_json: bool) -> None:
    """Look at every setting, dependency and right, and print what is wrong with the command that mends it.

    Exits with 1 when something is wrong; a warning is not.
    """
    raise SystemExit(_run(checklist.check(roundtrip_timeout_s=timeout_s if roundtrip else None, as_json=as_json)))


cli.add_command(cli_operate.dead)
cli.add_command(cli_operate.republish_)
cli.add_command(cli_operate.trace_)
cli.add_command(cli_outputs.expire_)
cli.add_command(cli_outputs.reconcile_)


def _load(kind: type[Settings]) -> Settings:
    settings = load(kind)
    if isinstance(settings, LogSettings):
        logs.configure(settings, settings.secrets())
    return settings


def _run(command: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(command)
