"""Grafana's dashboard, panel by panel."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "deploy" / "grafana" / "dashboards" / "image-uploads.json"


def dashboard() -> dict[str, Any]:
    """All of it."""
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def panels() -> list[dict[str, Any]]:
    """Those that show something: no headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


@dataclass(frozen=True)
class Query:
    """An expression of a panel; `panel` is the title."""

    panel: str
    expression: str

    def now(self, *, window: str) -> str:
        """What Grafana would ask Prometheus, with this length for each of its intervals."""
        return re.sub(r"\$__(rate_interval|interval|range)\b", window, self.expression)


def queries() -> list[Query]:
    """All expressions of all panels, from top to bottom."""
    return [Query(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
