"""What the commands of operators have in common: options, settings, and how they end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

import click

from schemas import logs
from schemas.environment import LogSettings, load

Loaded = TypeVar("Loaded", bound=LogSettings)
Command = TypeVar("Command", bound=Callable[..., None])

DRY_RUN: Final = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
YES: Final = click.option("--yes", is_flag=True, help="Do not ask.")
JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")


class Tally(Protocol):
    """What counts how far a command came."""

    @property
    def done(self) -> int:
        """So far."""


def options(*them: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """All of them, in this order."""

    def add(command: Command) -> Command:
        for option in reversed(them):
            command = option(command)
        return command

    return add


def loaded(kind: type[Loaded]) -> Loaded:
    """The settings; from now on the log hides their secrets.

    Raises:
        SettingsError: with one sentence for each that is missing or wrong.
    """
    settings = load(kind)
    logs.configure(settings, settings.secrets())
    return settings


def must_be_asked(*, yes: bool) -> bool:
    """Whether somebody sits there who has not said yes.

    Raises:
        click.UsageError: nobody has, and nobody sits there.
    """
    if yes:
        return False
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: --yes says that it is meant")
    return True


def confirm(question: str) -> None:
    """Somebody has said yes; else the program ends."""
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing was done")


@contextmanager
def told(tally: Tally, done: str) -> Iterator[None]:
    """Whoever is broken off says how far it came."""
    try:
        yield
    except BaseException:
        click.echo(f"{done} before it was broken off: {tally.done}", err=True)
        raise


def count(number: int, what: str) -> str:
    """So many of them."""
    return f"{number} {what}" + ("" if number == 1 else "s")
