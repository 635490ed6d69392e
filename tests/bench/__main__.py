"""The bench's command line: `python -m tests.bench`."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from sandbox.postgres import Postgres
from sandbox.process import DidNotStartError, NotInstalledError, Process
from tests.bench.bench import BARE_LOOP, WORKER, Bench, BrokenRunError, Contender, Run
from tests.bench.pictures import noise
from tests.bench.report import Report, print_json, print_table

_HOME = Path(__file__).parent.parent.parent / ".sandbox"
_SMALL_BYTES = 100 * 1024
_LARGE_BYTES = 8 * 1024 * 1024
_AT_ONCE = 64
_INTERRUPTED = 130


@click.command(epilog="Example: python -m tests.bench --rounds 9")
@click.option("--events", default=1000, show_default=True, type=click.IntRange(1), help="Of 100 KB each, per run.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Runs of each; medians count.")
@click.option("--json", "wants_json", is_flag=True, help="JSON instead of a table.")
def main(events: int, rounds: int, *, wants_json: bool) -> None:
    """Compare a worker with a bare loop: events per second, CPU and memory. Exit code 1: a target is missed."""
    if sys.platform != "linux":
        raise click.ClickException("the bench reads /proc, so it needs Linux")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it cleans up as after Ctrl-C
    try:
        report = _measure(events, rounds)
    except (BrokenRunError, DidNotStartError, NotInstalledError, LookupError) as error:
        raise click.ClickException(str(error)) from None
    (print_json if wants_json else print_table)(report)
    sys.exit(0 if report.passed else 1)


def _measure(events: int, rounds: int) -> Report:
    small, large = noise("small", _SMALL_BYTES), noise("large", _LARGE_BYTES)
    runs: dict[Contender, list[Run]] = {WORKER: [], BARE_LOOP: []}
    with _directory() as directory:
        bench = Bench(directory, (small, large))
        _tell("starting RabbitMQ, PostgreSQL and nginx")
        with bench.opened():
            for number in range(1, rounds + 1):
                for contender, its in runs.items():
                    its.append(run := bench.run(contender, small, events))
                    _tell(f"round {number} of {rounds}: {contender.name} {run.cpu_ms_per_event:.2f} ms CPU per event")
            _tell(f"{_AT_ONCE} images of 8 MB at once")
            peaks = {contender: bench.run(contender, large, _AT_ONCE).peak_mb for contender in runs}
    return Report(runs[WORKER], runs[BARE_LOOP], peaks[WORKER], peaks[BARE_LOOP])


@contextmanager
def _directory() -> Iterator[Path]:
    """Removed afterwards, as are those of benches that were killed; their services died with them."""
    for left_over in _HOME.glob("bench-*"):
        if Process.of(int(left_over.name.removeprefix("bench-"))) is None:
            _remove(left_over)
    directory = _HOME / f"bench-{os.getpid()}"
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        _remove(directory)


def _remove(directory: Path) -> None:
    Postgres(directory / "postgres").remove()  # its data may lie elsewhere
    shutil.rmtree(directory, ignore_errors=True)


def _tell(progress: str) -> None:
    click.echo(progress, err=True)


if __name__ == "__main__":
    try:
        main(prog_name="python -m tests.bench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(_INTERRUPTED)
