"""`image-uploads-producer cleanup`: a run of the cleanup now, beside the scheduled ones."""

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from producer.outcome import Outcomes, within
from producer.publisher import Publisher, RefusedError
from schemas.environment import AmqpSettings, load
from schemas.events import (
    CLEANUP_TASKS,
    CleanupCompletedData,
    CleanupRequested,
    CleanupRequestedData,
    CleanupTask,
    CleanupTaskResult,
)

_SOURCE: Final = "/operators/cli"
_WIDTH_OFF_A_TERMINAL: Final = 200
_DEFAULT_WAIT_S: Final = 1500  # two runs: the one before, which may just have begun, and ours


@click.command(
    epilog="""\b
Examples:
  image-uploads-producer cleanup --dry-run --wait
  image-uploads-producer cleanup --task expired --wait
"""
)
@click.option(
    "--task", "tasks", type=click.Choice(CLEANUP_TASKS), multiple=True, help="Only this task; may be given again."
)
@click.option("--dry-run", is_flag=True, help="Change nothing, and say what would be removed.")
@click.option("--wait", is_flag=True, help="Wait for the end of the run, and print what it did.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=_DEFAULT_WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to --wait.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead.")
def cleanup(*, tasks: tuple[CleanupTask, ...], dry_run: bool, wait: bool, timeout_s: float, as_json: bool) -> None:
    """Ask a worker for a cleanup now, and print the id of the request.

    temp removes abandoned files of TEMP_DIR, expired the objects whose time is over; orphans removes nothing, and
    counts objects that no row knows. --json names the first hundred of those.

    Exits with 0 when RabbitMQ has confirmed the request and, with --wait, the run ended without errors; else with 1.
    """
    request = CleanupRequested(
        id=str(uuid4()),
        source=_SOURCE,
        time=datetime.now(UTC),
        data=CleanupRequestedData(tasks=tasks or CLEANUP_TASKS, dry_run=dry_run),
    )
    amqp_url = load(AmqpSettings).amqp_url.get_secret_value()
    try:
        done = asyncio.run(_ask(request, amqp_url, timeout_s if wait else None))
    except RefusedError as error:
        raise click.ClickException("a cleanup is already queued: it comes by itself, or ask again later") from error
    _print_json(request, done) if as_json else _print(request, done)
    if done is not None and done.errors:
        raise click.exceptions.Exit(1)


async def _ask(request: CleanupRequested, amqp_url: str, wait_s: float | None) -> CleanupCompletedData | None:
    """The broker has the request; what the run did, if it was to be waited for."""
    async with Publisher(amqp_url) as publisher:
        if wait_s is None:
            await publisher.publish_event(request)
            return None
        console = Console(stderr=True)
        with console.status("waiting for the end of the cleanup") if console.is_terminal else nullcontext():
            async with Outcomes(amqp_url) as outcomes:
                with outcomes.of(request) as outcome:
                    await publisher.publish_event(request)
                    return (await within(wait_s, request, outcome)).data


def _print(request: CleanupRequested, done: CleanupCompletedData | None) -> None:
    if done is None:
        click.echo("a cleanup is asked for", err=True)
        click.echo(request.id)
        return
    table = Table("task", "result", "size", "note", box=None, pad_edge=False, header_style="bold")
    for task, result in done.tasks.items():
        table.add_row(task, f"{result.count} {_verb(task, done)}", decimal(result.bytes), _note(result))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OFF_A_TERMINAL)
    console.print(table)
    for error in done.errors:  # may repeat the name of a file, which anybody may have chosen
        click.echo(
            "Error: " + "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in error), err=True
        )


def _verb(task: str, done: CleanupCompletedData) -> str:
    if task == "orphans":
        return "found"
    return "would be removed" if done.dry_run else "removed"


def _note(result: CleanupTaskResult) -> str:
    skipped = [] if result.skipped is None else [f"skipped: {result.skipped}"]
    return ", ".join([*skipped, *([] if result.complete else ["unfinished: the next run goes on"])])


def _print_json(request: CleanupRequested, done: CleanupCompletedData | None) -> None:
    click.echo(f'{{"causeId": "{request.id}"}}' if done is None else done.model_dump_json(by_alias=True, indent=2))
