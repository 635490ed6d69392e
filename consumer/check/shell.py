"""Commands that mend, as they would be typed into the shell that the check was started from."""

import os
import shutil
import sys
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from shlex import quote
from typing import Final, Self
from urllib.parse import quote as percent_encode
from urllib.parse import urlsplit, urlunsplit

_SHOWN: Final = ("OSS_BUCKET", "OSS_REGION", "OSS_ENDPOINT", "OSS_BASE_URL")
"""Settings that may be seen while they are typed."""
_THIS_MACHINE: Final = (None, "", "localhost", "127.0.0.1", "::1")
_OF_A_CONNECTION: Final = ("host", "port", "sslmode")


@dataclass(frozen=True, slots=True)
class Shell:
    """What the commands depend on: a process's own environment outranks `.env`, whose last line for a name wins.

    `program` is how to start this program again, `exported` names what its environment sets.
    """

    program: str
    exported: frozenset[str]
    env_file_ends_early: bool = False

    @classmethod
    def here(cls) -> Self:
        """The shell that this very process was started from."""
        env_file = Path(".env")
        text = env_file.read_bytes() if env_file.is_file() and os.access(env_file, os.R_OK) else b""
        return cls(
            program=_program(),
            exported=frozenset(name.upper() for name, value in os.environ.items() if value),
            env_file_ends_early=bool(text) and not text.endswith(b"\n"),
        )

    def run(self, *words: str) -> str:
        """A command of this program."""
        return " ".join((self.program, *words))

    def set(self, **values: str) -> str:
        """The settings have these values, for the next start."""
        return " && ".join(self._set(name, value) for name, value in values.items())

    def ask(self, *names: str) -> str:
        """The settings have the values that are typed then, a line each; secrets are not shown while they are typed."""
        return " && ".join(self._ask(name) for name in names)

    def reset(self, name: str) -> str:
        """The setting has its default."""
        return f"unset {name}" if name in self.exported else self._append(f"{name}=")

    def start(self, unit: str, host: str | None, *, usual_port: bool, setting: str) -> str:
        """The server runs, where it is a service of this machine; where it may be elsewhere, its address is typed."""
        is_service = any(Path(place, "systemd/system", f"{unit}.service").exists() for place in ("/etc", "/lib"))
        if host in _THIS_MACHINE and usual_port and is_service and Path("/run/systemd/system").exists():
            return f"sudo systemctl start {unit}"
        return self.ask(setting)

    def _set(self, name: str, value: str) -> str:
        if name in self.exported:
            return f"export {quote(f'{name}={value}')}"
        return self._append(f"{name}={value}" if quote(value) == value else f"{name}='{value}'")

    def _ask(self, name: str) -> str:
        read = f"read -{'r' if name in _SHOWN else 'rs'} {name}"
        if name in self.exported:
            return f"{read} && export {name}"
        return f"{read} && {self._newline()}echo \"{name}='${name}'\" >> .env"

    def _append(self, line: str) -> str:
        return f"{self._newline()}echo {quote(line)} >> .env"

    def _newline(self) -> str:
        return "echo >> .env && " if self.env_file_ends_early else ""


def sql(dsn: str, user: str, *statements: str) -> str:
    """A psql that runs the statements in the URL's database, as another user, whose password it asks for."""
    parts = urlsplit(dsn)
    hosts = parts.netloc.rpartition("@")[2]
    # Whatever else is in the query may be a secret.
    query = "&".join(pair for pair in parts.query.split("&") if pair.partition("=")[0] in _OF_A_CONNECTION)
    url = urlunsplit(("postgresql", f"{percent_encode(user, safe='')}@{hosts}", parts.path, query, ""))
    return f"psql {quote(url)} -c {quote('; '.join(statements))}"


def user() -> str:
    """Who runs this process."""
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user needs no name
        return str(os.geteuid())


def path(value: Path) -> str:
    """The path, quoted for a shell."""
    return quote(str(value))


def _program() -> str:
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{_as_typed(Path(sys.executable))} -m consumer"
    return _as_typed(started)


def _as_typed(program: Path) -> str:
    if shutil.which(program.name) == str(program):
        return quote(program.name)
    if program.is_absolute() and program.is_relative_to(Path.cwd()):
        return quote(str(program.relative_to(Path.cwd())))
    return quote(str(program))
