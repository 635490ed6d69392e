"""Somebody's project: a `.env`, a check that is started beside it, and a shell that its mends are pasted into."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests import programs
from tests.e2e.product_process import basics

_TIMEOUT_S: Final = 90


@dataclass(frozen=True)
class Checklist:
    """What a check has found."""

    exit_code: int | None
    findings: list[dict[str, Any]]

    def of(self, subject: str, *verdicts: str) -> list[dict[str, Any]]:
        """The findings about the subject that have one of the verdicts."""
        return [
            finding for finding in self.findings if finding["subject"] == subject and finding["verdict"] in verdicts
        ]

    def trouble(self) -> list[str]:
        """The texts of all that is wrong."""
        return [finding["text"] for finding in self.findings if finding["verdict"] == "wrong"]


class Project:
    """A directory whose `.env` has these settings; programs that stand in for others (`sudo`) are in its `bin`."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.directory = directory
        self.env_file = directory / ".env"
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self.shell = basics(directory)
        """The shell's environment."""
        self.shell["PATH"] = f"{directory / 'bin'}{os.pathsep}{self.shell['PATH']}"
        (directory / "bin").mkdir()
        self.stand_in("sudo", 'exec "$@"')

    def stand_in(self, name: str, script: str) -> None:
        """Whoever types the program's name gets the script."""
        stand_in = self.directory / "bin" / name
        stand_in.write_text(f"#!/bin/sh\n{script}\n")
        stand_in.chmod(0o755)

    def add(self, **settings: str) -> None:
        """The last lines of `.env` are these."""
        with self.env_file.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    def say(self, *options: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """What `check` says when it is typed, and its exit code; words `before` it start it in another way."""
        return self._run([*before, sys.executable, "-m", "consumer", "check", *options])

    def check(self, *options: str, before: Sequence[str] = ()) -> Checklist:
        """What `check` finds."""
        if before:
            done = self.say("--json", *options, before=before)
            return Checklist(done.returncode, json.loads(done.stdout))
        shown = self.directory / "shown"
        shown.write_bytes(b"")
        process = programs.start(["consumer", "check", "--json", *options], self.shell, self.directory, shown)
        process.join(_TIMEOUT_S)
        assert process.exitcode in (0, 1), shown.read_text()
        return Checklist(process.exitcode, json.loads(shown.read_text()))

    def paste(self, mend: str, *typed: str) -> None:
        """The mend was pasted into the shell, and what it asks for was typed."""
        after = self.directory / "environment"
        done = self._run(["bash", "-c", f"{mend}\ncode=$?; env -0 > environment; exit $code"], typed)
        assert done.returncode == 0, f"{mend}\n{done.stdout}{done.stderr}"
        self.shell = dict(line.split("=", 1) for line in after.read_text().split("\0") if line)

    def _run(self, command: list[str], typed: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.shell,
            cwd=self.directory,
            input="".join(f"{line}\n" for line in typed),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
