"""What the demo shows, on a terminal and elsewhere."""

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from sandbox.demo.proof import LATEST, OnResult, Report, Result
from sandbox.worker import Worker
from schemas.events import ImageUploadCompleted, ImageUploadFailed

_WIDE: Final = 500  # off a terminal nothing needs to be folded
_LOG_LINES: Final = 15


class Screen:
    """Standard output."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()  # and not what rich makes of FORCE_COLOR: we would stay up for ever
        self._console = Console(
            force_terminal=self.is_terminal, width=None if self.is_terminal else _WIDE, highlight=False
        )

    def tell(self, progress: str) -> None:
        """Something begins."""
        self._console.print(f"[dim]{escape(progress)} …[/]")

    def problem(self, sentence: str) -> None:
        """Something is not as it must be."""
        self._console.print(f"[bold red]✗[/] {escape(sentence)}", soft_wrap=True)

    def log(self, path: Path) -> None:
        """The end of a log, and where it is."""
        lines = path.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        self._console.print(f"The worker's log ({path}) ends:", soft_wrap=True, markup=False)
        self._console.print("\n".join(f"    {line}" for line in lines), soft_wrap=True, markup=False)

    @contextmanager
    def progress(self, count: int) -> Iterator[OnResult]:
        """Each result becomes a line; on a terminal a bar shows how many are missing."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self.is_terminal) as bar:
            task = bar.add_task("images on their way", total=count)

            def on_result(result: Result) -> None:
                self._console.print(f"{_mark(result)} {result.job.id}: {result.job.about} → {_outcome(result)}")
                bar.advance(task)

            self._console.print(f"[dim]publishing {count} events …[/]")
            yield on_result

    def show(self, report: Report) -> None:
        """The table, and what was verified or is wrong."""
        self._console.print()
        table = _table(report, with_url=True)
        if (
            self._console.measure(table, options=self._console.options.update_width(_WIDE)).maximum
            <= self._console.width
        ):
            self._console.print(table)
        else:  # folded, a URL could neither be read nor copied
            self._console.print(_table(report, with_url=False))
            for result in report.results:
                if result.image_url:
                    self._console.print(escape(result.image_url), soft_wrap=True)
        for problem in report.problems:
            self.problem(problem)
        if not report.problems:
            self._console.print(_verified(report), soft_wrap=True)

    def addresses(self, settings: Mapping[str, str], worker: Worker, sample: Path) -> None:
        """Where to look while everything stays up, and how to go on."""
        passed_on = " ".join(f"{name}={shlex.quote(settings[name])}" for name in ("AMQP_URL", "TEMP_DIR"))
        python = shlex.quote(sys.executable)
        lines = {
            "metrics": f"{worker.url}/metrics",
            "readiness": f"{worker.url}/readyz",
            "rows": f"psql {settings['DATABASE_URL']} -c {shlex.quote(LATEST)}",
            "broker": settings["AMQP_URL"],
            "log": str(worker.log),
            "one more": f"{passed_on} {python} -m producer publish {shlex.quote(str(sample))} --user demo --wait",
        }
        self._console.print("\nEverything is still up, and so are the images above:\n")
        for name, value in lines.items():
            self._console.print(f"[bold]{name}[/]\n{escape(value)}", soft_wrap=True)
        self._console.print("\nCtrl-C stops everything.")

    def over(self, *, interrupted: bool) -> None:
        """Nothing runs any more."""
        self._console.print(f"{'interrupted; ' * interrupted}everything is stopped")


def _table(report: Report, *, with_url: bool) -> Table:
    table = Table("job", "outcome")
    if with_url:
        table.add_column("object URL", no_wrap=True)
    table.add_column("row", overflow="fold")
    table.add_column("took", justify="right")
    for result in report.results:
        url = (escape(result.image_url),) if with_url else ()
        took = f"{result.took_s * 1000:.0f} ms"
        table.add_row(f"{_mark(result)} {result.job.id}", _outcome(result), *url, result.row, took)
    return table


def _verified(report: Report) -> str:
    stored = sum(bool(result.image_url) for result in report.results)
    return (
        f"[bold green]✓[/] {stored} objects read back byte-identical to their sources, "
        f"{len(report.results) - stored} refused for the reason they had to be, one row each; TEMP_DIR is empty;\n"
        f"  {escape(LATEST)} answered with job {report.latest}"
    )


def _mark(result: Result) -> str:
    return "[bold red]✗[/]" if result.problems else "[bold green]✓[/]"


def _outcome(result: Result) -> str:
    match result.outcome:
        case ImageUploadCompleted():
            return "[green]stored[/]"
        case ImageUploadFailed() as failed:
            return f"[yellow]failed: {failed.data.reason}[/]"
        case _:
            return "[red]none[/]"
