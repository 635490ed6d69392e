"""What a look at one thing has found."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["ok", "warning", "wrong", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the checklist; `mend` is a command that can be pasted into a shell, where one is known."""

    verdict: Verdict
    subject: str
    text: str
    mend: str | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What the findings of one part of the checklist are about."""

    name: str

    def ok(self, text: str) -> Finding:
        """It is as it should be."""
        return Finding("ok", self.name, text)

    def warning(self, text: str, mend: str | None = None) -> Finding:
        """It works, and somebody may be surprised by how."""
        return Finding("warning", self.name, text, mend)

    def wrong(self, text: str, mend: str | None = None) -> Finding:
        """It does not work."""
        return Finding("wrong", self.name, text, mend)

    def skipped(self, text: str) -> Finding:
        """It was not looked at, because of what was found before."""
        return Finding("skipped", self.name, text)
