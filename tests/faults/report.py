"""What the campaigns came to."""

import json
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from tests.faults.ledger import Verdict

_SHOWN = 20


def print_table(verdicts: Mapping[str, Verdict]) -> None:
    """Figures by campaign, and what was broken."""
    console = Console()
    table = Table()
    for heading in ("campaign", "figures", ""):
        table.add_column(heading)
    for name, verdict in verdicts.items():
        figures = ", ".join(f"{figure} {value:g}" for figure, value in verdict.figures.items())
        table.add_row(name, figures, "[red]BROKEN[/]" if verdict.violations else "[green]pass[/]")
    console.print(table)
    for name, verdict in verdicts.items():
        for violation in verdict.violations[:_SHOWN]:
            console.print(f"{name}: {violation}", markup=False)
        if (more := len(verdict.violations) - _SHOWN) > 0:
            console.print(f"{name}: and {more} more")


def print_json(verdicts: Mapping[str, Verdict]) -> None:
    """The same, for programs."""
    content = {
        name: {"figures": verdict.figures, "violations": verdict.violations, "passed": not verdict.violations}
        for name, verdict in verdicts.items()
    }
    print(json.dumps(content, indent=2))  # noqa: T201 it is what was asked for
