"""What `reconcile` prints, while it goes."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

import click
from rich.filesize import decimal

from consumer.operate.display import cell, shown
from consumer.operate.reconcile import ADVICE, Finding, State, Summary

_WHAT_CHARS: Final = max(map(len, ADVICE))
_KEY_CHARS: Final = 88  # of most keys
_QUIET: Final = (State.MATCHING, *ADVICE)


class Findings(ABC):
    """On standard output, by what puts lines there; each is there as soon as it is told."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._is_empty = True

    @abstractmethod
    def tell(self, finding: Finding) -> None:
        """One more."""

    @abstractmethod
    def end(self, summary: Summary) -> None:
        """What all has come to."""

    @staticmethod
    def of(say: Callable[[str], None], *, as_json: bool) -> "Findings":
        """A table, or one JSON document; what is broken off is none."""
        return FindingsDocument(say) if as_json else FindingsTable(say)


class FindingsTable(Findings):
    """A line for each, with a summary behind them."""

    def tell(self, finding: Finding) -> None:
        """There is a line for it, below the headings."""
        if self._is_empty:
            self._say(_line("what", "key", "detail"))
        self._is_empty = False
        self._say(_line(finding.what, cell(finding.key), cell(finding.detail)))

    def end(self, summary: Summary) -> None:
        """There are counts, and for each kind of finding what can be done about it."""
        if not self._is_empty:
            click.echo()
        click.echo(f"compared: {summary.objects} objects ({decimal(summary.object_bytes)}) with {summary.rows} rows")
        click.echo(f"matching: {summary.states[State.MATCHING]}")
        for state in State:
            if state not in _QUIET and summary.states[state]:
                click.echo(f"{state}: {summary.states[state]}")
        if not summary.differences:
            click.echo("nothing differs")
        for state, advice in ADVICE.items():
            if summary.states[state]:
                click.secho(f"{state}: {summary.states[state]} ({advice})", fg="red")


class FindingsDocument(Findings):
    """`{"findings": […], "summary": {…}}`, written piece by piece."""

    _start = '{"findings": ['

    def tell(self, finding: Finding) -> None:
        """The list has it."""
        self._say(f"{self._start if self._is_empty else ','} {_json(finding)}")
        self._is_empty = False

    def end(self, summary: Summary) -> None:
        """The document is complete."""
        content = {
            "objects": summary.objects,
            "objectBytes": summary.object_bytes,
            "rows": summary.rows,
            "counts": {state: summary.states[state] for state in State},
            "advice": {state: advice for state, advice in ADVICE.items() if summary.states[state]},
        }
        click.echo(f'{self._start * self._is_empty}], "summary": {_json(content)}}}')


def _line(what: str, key: str, detail: str) -> str:
    return f"{what:<{_WHAT_CHARS}}  {key:<{_KEY_CHARS}}  {detail}"


def _json(value: Any) -> str:  # noqa: ANN401 of any of JSON's kinds
    return json.dumps(shown(value), ensure_ascii=False)
