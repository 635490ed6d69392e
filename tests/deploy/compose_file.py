"""docker-compose.yml as Docker Compose reads it, as far as it uses the language."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "docker-compose.yml"

# The one form that we use: with a default, so that nothing is needed and Compose has nothing to warn of.
_VARIABLE: Final = re.compile(r"\$\{(\w+):-([^${}]*)\}")


def compose(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the file says where the shell and .env have these variables; none by default."""
    content: dict[str, Any] = _interpolated(yaml.safe_load(FILE.read_text()), environment or {})
    return content


def services(environment: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The services by name: see `compose`."""
    found: dict[str, dict[str, Any]] = compose(environment)["services"]
    return found


def _interpolated(value: Any, known: Mapping[str, str]) -> Any:
    # After the YAML was read, as Compose does: an empty value is an empty string, not a null.
    if isinstance(value, dict):
        return {key: _interpolated(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [_interpolated(inner, known) for inner in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: known.get(match[1]) or match[2], value)
    return value
