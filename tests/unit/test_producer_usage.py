"""How the command ends when there is nothing to publish to, or nothing to publish: one sentence, and its exit code."""

import io
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from producer.__main__ import main

CANARY = "canary-password"
NOWHERE = f"amqp://user:{CANARY}@127.0.0.1:1/"
URL = "https://cdn.example.com/fox.png"


@dataclass
class Ended:
    """How a run of the command ended."""

    code: object
    out: str
    err: str


Run: TypeAlias = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setenv("AMQP_URL", NOWHERE)
    monkeypatch.setenv("TEMP_DIR", str(tmp_path / "shared"))

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["image-uploads-producer", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("arguments", [["--help"], ["publish", "--help"]])
def test_help_has_an_example(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.code == 0
    assert "image-uploads-producer publish fox.png --user test@factory-buy.com" in ended.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["publish", URL], "Missing option '--user'"),
        (["publish", "--user", "a"], "Missing argument 'IMAGE'"),
        (["publish", URL, "--user", "a b"], "data.userId string should match pattern"),
        (["publish", URL, "--user", "a", "--job", "a..b"], "data.jobId holds '..'"),
        (["publish", "ftp://h/fox.png", "--user", "a"], "data.imageUrl is none of https:, http:, file: and data:"),
        (["publish", "missing.png", "--user", "a"], "missing.png cannot be read: No such file or directory"),
        (["publish", "/", "--user", "a"], "/ cannot be read: Is a directory"),
        (["publish", os.devnull, "--user", "a"], "there is nothing in it"),
        (["publish", URL, "--user", "a", "--metadata", "[1]"], "must be a JSON object"),
        (["publish", URL, "--user", "a", "--metadata", "{"], "must be a JSON object"),
        (["publish", URL, "--user", "a", "--expires-at", "tomorrow"], "data.expiresAt is no RFC 3339 date and time"),
        (["publish", URL, "--user", "a", "--wait", "--timeout", "0"], "0.0 is not in the range x>0"),
        (["cleanup", "--task", "everything"], "'everything' is not one of 'temp', 'expired', 'orphans'"),
        (["cleanup", "--wait", "--timeout", "0"], "0.0 is not in the range x>0"),
        (["paint"], "No such command 'paint'"),
    ],
)
def test_wrong_usage_is_code_2_and_a_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("url", [f"http://user:{CANARY}@h/", CANARY, f"amqp:///{CANARY}"])
def test_wrong_settings_are_code_2_and_a_sentence_each(run: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AMQP_URL", url)
    ended = run("publish", URL, "--user", "a")
    assert ended.code == 2
    assert ended.err == "AMQP_URL must start with amqp:// or amqps:// and a host (see .env.example)\n"


@pytest.mark.parametrize("wait", [[], ["--wait"]], ids=["publish", "wait"])
def test_an_absent_broker_is_code_1_and_a_sentence(
    run: Run, wait: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "fox.png").write_bytes(b"pixels")
    ended = run("publish", str(tmp_path / "fox.png"), "--user", "a", *wait)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.count("\n") == 1
    assert "RabbitMQ cannot be reached" in ended.err
    assert CANARY not in ended.err + caplog.text
    assert not list((tmp_path / "shared").iterdir()), "nothing was published, so nothing may stay"


@pytest.mark.parametrize("wait", [[], ["--wait"]], ids=["ask", "wait"])
def test_a_cleanup_without_a_broker_is_code_1_and_a_sentence(run: Run, wait: list[str]) -> None:
    ended = run("cleanup", *wait)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.count("\n") == 1
    assert "RabbitMQ cannot be reached" in ended.err
    assert CANARY not in ended.err


def test_the_help_of_cleanup_has_an_example_and_says_what_orphans_does(run: Run) -> None:
    ended = run("cleanup", "--help")
    assert ended.code == 0
    assert "image-uploads-producer cleanup --dry-run --wait" in ended.out
    assert "orphans removes nothing" in ended.out


def test_a_temp_dir_that_cannot_be_written_is_code_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file")
    (tmp_path / "fox.png").write_bytes(b"pixels")
    ended = run("publish", str(tmp_path / "fox.png"), "--user", "a")
    assert ended.code == 1
    assert f"TEMP_DIR {tmp_path}/shared cannot take the image: File exists" in ended.err


def test_a_refused_event_leaves_no_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"pixels")))
    assert run("publish", "-", "--user", "a b").code == 2
    assert not list((tmp_path / "shared").iterdir())


def test_the_programs_that_read_its_output_see_no_log_line() -> None:
    command = [sys.executable, "-m", "producer", "publish", URL, "--user", "a"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env={"AMQP_URL": NOWHERE}, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: event ")
    assert ended.stderr.count("\n") == 1


def test_an_interrupted_command_is_code_130() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"AMQP_URL": f"amqp://127.0.0.1:{silent.getsockname()[1]}/"}
        command = [sys.executable, "-m", "producer", "publish", URL, "--user", "a"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
            connection.close()
    assert (process.returncode, err.strip()) == (130, "interrupted")
