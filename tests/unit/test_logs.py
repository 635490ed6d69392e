"""Each test runs a program of its own: how a process logs is one decision, made at its start."""

import json
import subprocess
import sys

import pytest

SPEAKING = """
import logging, structlog
from schemas import logs
from schemas.environment import LogSettings

logs.configure(LogSettings(), ["CANARY"])
log = structlog.get_logger()
log.info("CANARY", url="https://x/?token=CANARY", nested={"a": ["CANARY"]})
logging.getLogger("some.library").error("broken: %s", "CANARY")
try:
    local = "LOCAL-" + "VARIABLE"
    raise ValueError("CANARY in an error")
except ValueError:
    log.exception("caught")
    logging.getLogger("some.library").exception("caught")
log.debug("not shown at info")
"""


def said(**environment: str) -> str:
    run = subprocess.run([sys.executable, "-c", SPEAKING], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == ""
    return run.stderr


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_secret_leaves_whoever_speaks_and_however(style: str) -> None:
    shown = said(LOG_FORMAT=style)
    assert "CANARY" not in shown
    assert shown.count("***") >= 6
    assert "not shown" not in shown
    assert "LOCAL-VARIABLE" not in shown


def test_off_a_terminal_each_line_is_json() -> None:
    lines = [json.loads(line) for line in said().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("***", "info"),
        ("broken: ***", "error"),
        ("caught", "error"),
        ("caught", "error"),
    ]
