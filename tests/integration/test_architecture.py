"""The house rules hold because something fails when they are broken: each is broken here, in a copy."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VIOLATIONS = {
    "consumer/core/outcome.py": "from consumer.adapters import oss",
    "consumer/runtime/worker.py": "from consumer.handlers import store_image",
    "consumer/handlers/store_image.py": "import asyncpg",
    "consumer/adapters/oss.py": "from consumer import app",
    "consumer/app.py": "from consumer.check import checklist",
    "consumer/operate/trace.py": "from consumer.check import checklist",
    "consumer/operate/republish.py": "import asyncpg",
    "producer/publisher.py": "from consumer.core import errors",
    "consumer/core/errors.py": "import producer",
    "schemas/reasons.py": "import click",
    "consumer/settings.py": "import sandbox",
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("house")
    for package in ("consumer", "producer", "schemas", "sandbox"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint(house: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(
        command, cwd=house, env={"PYTHONPATH": str(house)}, capture_output=True, text=True, check=False
    )


def test_the_house_as_it_is_keeps_its_contracts(house: Path) -> None:
    run = lint(house)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(("file", "line"), VIOLATIONS.items())
def test_a_planted_violation_is_found(house: Path, file: str, line: str) -> None:
    path = house / file
    text = path.read_text()
    path.write_text(f"{text}\n{line}\n")
    run = lint(house)
    path.write_text(text)
    assert run.returncode == 1, run.stdout
    assert "BROKEN" in run.stdout
