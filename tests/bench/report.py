"""What came out, against what was promised."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.bench.bench import Run

MOST_CPU_RATIO: Final = 1.5
MOST_MEMORY_MB: Final = 300


@dataclass(frozen=True, slots=True)
class Report:
    """Runs in the order in which they were made, so that those of one round stand at the same place."""

    worker: Sequence[Run]
    bare_loop: Sequence[Run]
    worker_peak_mb: float
    """With the large images."""
    bare_loop_peak_mb: float

    @property
    def cpu_ratio(self) -> float:
        """The median of the rounds' ratios: what else the machine does falls on both runs of a round."""
        rounds = zip(self.worker, self.bare_loop, strict=True)
        return median(worker.cpu_ms_per_event / bare.cpu_ms_per_event for worker, bare in rounds)

    @property
    def cpu_passed(self) -> bool:
        return self.cpu_ratio <= MOST_CPU_RATIO

    @property
    def memory_passed(self) -> bool:
        return self.worker_peak_mb <= MOST_MEMORY_MB

    @property
    def passed(self) -> bool:
        return self.cpu_passed and self.memory_passed


def middle(runs: Sequence[Run]) -> Run:
    """Each figure's median."""
    figures = [asdict(run) for run in runs]
    return Run(**{name: median(run[name] for run in figures) for name in figures[0]})


def print_table(report: Report) -> None:
    table = Table(title=f"1 worker process, medians of {len(report.worker)} rounds", title_justify="left")
    table.add_column("")
    for heading in ("events/s", "CPU ms/event", "peak MB", "rows/commit", "peak MB, 64 x 8 MB"):
        table.add_column(heading, justify="right")
    for name, runs, peak_mb in (
        ("worker", report.worker, report.worker_peak_mb),
        ("bare loop", report.bare_loop, report.bare_loop_peak_mb),
    ):
        run = middle(runs)
        table.add_row(
            name,
            f"{run.events_per_s:.0f}",
            f"{run.cpu_ms_per_event:.2f}",
            f"{run.peak_mb:.0f}",
            f"{run.rows_per_commit:.1f}",
            f"{peak_mb:.0f}",
        )
    console = Console()
    console.print(table)
    console.print(f"CPU ratio {report.cpu_ratio:.2f}, at most {MOST_CPU_RATIO}: {_verdict(passed=report.cpu_passed)}")
    console.print(
        f"peak memory {report.worker_peak_mb:.0f} MB, at most {MOST_MEMORY_MB}: {_verdict(passed=report.memory_passed)}"
    )


def print_json(report: Report) -> None:
    content = {
        **asdict(report),
        "worker_median": asdict(middle(report.worker)),
        "bare_loop_median": asdict(middle(report.bare_loop)),
        "cpu_ratio": report.cpu_ratio,
        "targets": {"cpu_ratio": MOST_CPU_RATIO, "worker_peak_mb": MOST_MEMORY_MB},
        "passed": report.passed,
    }
    print(json.dumps(content, indent=2))  # noqa: T201 it is what was asked for


def _verdict(*, passed: bool) -> str:
    return "[green]pass[/]" if passed else "[red]FAIL[/]"
