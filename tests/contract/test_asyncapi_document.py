"""AsyncAPI's own parser reads what we export."""

import subprocess
from pathlib import Path

from schemas.__main__ import DIRECTORY

NODE = Path(__file__).parent.parent / "node"


def test_the_asyncapi_parser_finds_no_error() -> None:
    assert (NODE / "node_modules").is_dir(), "run `sandbox/setup node`"
    command = ["node", str(NODE / "asyncapi.js"), str(DIRECTORY / "asyncapi.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_asyncapi_parser_would_find_one(tmp_path: Path) -> None:
    broken = tmp_path / "asyncapi.json"
    broken.write_text((DIRECTORY / "asyncapi.json").read_text().replace('"action": "send"', '"action": "shout"'))
    command = ["node", str(NODE / "asyncapi.js"), str(broken)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "error" in done.stdout
