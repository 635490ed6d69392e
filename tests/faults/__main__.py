"""The command line of the proof: `python -m tests.faults`."""

import asyncio
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from sandbox.postgres import Postgres
from sandbox.process import DidNotStartError, NotInstalledError, Process
from tests.faults import (  # noqa: F401 each brings its campaigns
    abandoned,
    contest,
    crashes,
    crossings,
    expiry,
    freezes,
    inventory,
    leaders,
    links,
    mutants,
    outages,
    restarts,
    ticks,
)
from tests.faults.campaign import CAMPAIGNS
from tests.faults.ledger import Verdict
from tests.faults.report import print_json, print_table
from tests.faults.services import Services

_HOME: Final = Path(__file__).parents[2] / ".sandbox"
_INTERRUPTED: Final = 130


def _sizes(_context: click.Context, _option: click.Parameter, words: Sequence[str]) -> dict[str, int]:
    try:
        return {name: int(number) for name, _, number in (word.partition("=") for word in words)}
    except ValueError:
        raise click.BadParameter("must look like kills=30") from None


@click.command(epilog="Example: python -m tests.faults kills --size kills=30 --size events=1500")
@click.argument("names", nargs=-1, type=click.Choice(list(CAMPAIGNS)), metavar="[NAME]...")
@click.option("--small", is_flag=True, help="In the sizes of the tests.")
@click.option(
    "--size", "sizes", multiple=True, metavar="WHAT=N", callback=_sizes, help="Another size, where it has one."
)
@click.option("--json", "wants_json", is_flag=True, help="JSON instead of a table.")
@click.option("--keep", is_flag=True, help="Leave logs and data of a broken run where they are.")
def main(names: Sequence[str], *, small: bool, sizes: dict[str, int], wants_json: bool, keep: bool) -> None:
    """Do everything to private services and workers, and compare what is left with what was promised.

    Without NAMES all campaigns are carried out, but not the one of the peers. Exit code 1: a promise was broken.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it cleans up as after Ctrl-C
    logging.disable()  # libraries tell of every connection that we cut
    verdicts: dict[str, Verdict] = {}
    try:
        with _directory(keep=keep) as directory, Services.opened(directory) as services:
            for name in names or [name for name, campaign in CAMPAIGNS.items() if not campaign.on_request]:
                verdicts[name] = _carry_out(name, services, sizes, small=small)
    except (DidNotStartError, NotInstalledError) as error:
        raise click.ClickException(str(error)) from None
    (print_json if wants_json else print_table)(verdicts)
    sys.exit(any(verdict.violations for verdict in verdicts.values()))


def _carry_out(name: str, services: Services, sizes: dict[str, int], *, small: bool) -> Verdict:
    campaign = CAMPAIGNS[name]
    usual = campaign.small if small else campaign.sizes
    chosen = {size: sizes.get(size, number) for size, number in usual.items()}
    _tell(f"{name}: {', '.join(f'{size} {number}' for size, number in chosen.items())}")
    began = time.monotonic()
    try:
        verdict = asyncio.run(campaign.run(services, **chosen))
    except AssertionError as error:
        verdict = Verdict({}, [str(error)])
    verdict.told("seconds", round(time.monotonic() - began, 1))
    _tell(f"{name}: {'BROKEN' if verdict.violations else 'pass'} after {verdict.figures['seconds']:g} s")
    return verdict


@contextmanager
def _directory(*, keep: bool) -> Iterator[Path]:
    """Removed afterwards, as are those of runs that were killed; their services died with them."""
    for left_over in _HOME.glob("faults-*"):
        if Process.of(int(left_over.name.removeprefix("faults-"))) is None:
            _remove(left_over)
    directory = _HOME / f"faults-{os.getpid()}"
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        if not keep:
            _remove(directory)


def _remove(directory: Path) -> None:
    Postgres(directory / "postgres-faults").remove()  # its data may lie elsewhere
    shutil.rmtree(directory, ignore_errors=True)


def _tell(progress: str) -> None:
    click.echo(progress, err=True)


if __name__ == "__main__":
    try:
        main(prog_name="python -m tests.faults", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(_INTERRUPTED)
