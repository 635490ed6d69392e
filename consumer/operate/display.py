"""What operators see: tables and JSON, in which every text is redacted, and a bar that moves on a terminal."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click
from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from consumer.core.redact import redact

_WIDTH_OFF_A_TERMINAL: Final = 200


def print_json(value: object) -> None:
    """The value is on standard output, with the names and times of the wire."""
    click.echo(json.dumps(shown(value), indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """The rows are on standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OFF_A_TERMINAL)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    console.print(table)


def cell(value: object) -> str:
    """The value in a table."""
    match value:
        case None:
            return "-"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        case _:
            return redact(str(value))


def shown(value: object) -> Any:  # noqa: ANN401 JSON is any of its kinds
    """The value as JSON knows it; texts and keys are redacted."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Mapping():
            return {redact(str(name)): shown(part) for name, part in value.items()}
        case list() | tuple():
            return [shown(part) for part in value]
        case None | bool() | int() | float():
            return value
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {to_camel(part.name): shown(getattr(value, part.name)) for part in fields(value)}
        case _:
            return redact(str(value))


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal; what the context gives says how far it is."""
    with _bar(what, total) as (_, show):
        yield show


@contextmanager
def progress_and_lines(what: str) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """The same where no total is known, and what puts a line on standard output, above the bar on the same screen."""
    with _bar(what, None) as (console, show):

        def say(line: str) -> None:
            if console.is_terminal and sys.stdout.isatty():
                console.print(Text(line), soft_wrap=True)
            else:
                click.echo(line)

        yield show, say


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[tuple[Console, Callable[[int], None]]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,  # it may be a file, which is not to be seen on the screen
    ) as bar:
        task = bar.add_task(what, total=total)
        yield console, lambda completed: bar.update(task, completed=completed)
