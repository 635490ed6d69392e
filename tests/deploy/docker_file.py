"""deploy/Dockerfile as its instructions, stage by stage."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "deploy" / "Dockerfile"


@dataclass
class Stage:
    """A stage: what it starts from, and its instructions in order, as pairs of keyword and the rest."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all_of(self, keyword: str) -> list[str]:
        """The rest of each such instruction."""
        return [rest for found, rest in self.instructions if found == keyword]


def stages() -> dict[str, Stage]:
    """The stages by name; the last one has none, and is filed under an empty one."""
    text = re.sub(r"^\s*#.*\n", "", FILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found: dict[str, Stage] = {}
    stage = Stage("")
    for line in filter(None, lines):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = found[name] = Stage(base)
        else:
            stage.instructions.append((keyword, rest))
    return found


def lineage(name: str) -> list[Stage]:
    """The stage and those that it stands on, the lowest first."""
    known = stages()
    below = [known[name]]
    while below[0].base in known:
        below.insert(0, known[below[0].base])
    return below


def last(name: str, keyword: str) -> str:
    """The rest of the instruction that counts in an image of this stage, of those of which one counts."""
    return [rest for stage in lineage(name) for rest in stage.all_of(keyword)][-1]


def environment(name: str) -> dict[str, str]:
    """The variables that an image of this stage sets."""
    words = [word for stage in lineage(name) for rest in stage.all_of("ENV") for word in rest.split()]
    return {variable: value for variable, _, value in (word.partition("=") for word in words)}


def exec_form(rest: str) -> list[str]:
    """The words of a command in exec form.

    Raises:
        ValueError: It is in shell form.
    """
    words: list[str] = json.loads(rest)
    return words
