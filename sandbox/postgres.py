"""A private PostgreSQL server: own port, no Unix socket, data in a directory."""

import asyncio
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import asyncpg

from sandbox.process import NotInstalledError, Program, as_user
from sandbox.service import Service

_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


class Postgres(Service):
    """A PostgreSQL server on 127.0.0.1 that lets everybody on this machine in, as `postgres`.

    PostgreSQL refuses to run as root, so then it runs as the user `postgres` or `nobody`; its data lies outside
    `directory`, in the system's directory for temporary files that survive a restart, where that user cannot get
    into `directory`.

    Args:
        directory: Where its data, log and ledger are; made when missing.
        attached: It dies with this process, however that ends. Otherwise it stays until it is stopped.
        settings: Further ones of `postgresql.conf`, e.g. `fsync`.
    """

    title = "PostgreSQL"
    port_names = ("postgres",)

    def __init__(self, directory: Path, *, attached: bool = True, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, attached=attached)
        self._settings = dict(settings or {})

    @property
    def url(self) -> str:
        """Its database `postgres`."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """Where to find a database of this server, whether or not it exists. The name is not escaped."""
        return f"postgresql://postgres@127.0.0.1:{self.ports['postgres']}/{name}"

    def add_database(self, name: str) -> str:
        """The database exists, and is empty if it did not exist before; its URL."""
        if not ask(self.url, f"SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{name}')"):  # noqa: S608 # ours
            ask(self.url, f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self.database_url(name)

    @cached_property
    def data(self) -> Path:
        """Where its data is, or will be."""
        inside = self.directory / "data"
        if self._user is None or _may_enter(self._user, self.directory):
            return inside
        name = hashlib.sha256(str(self.directory).encode()).hexdigest()[:16]
        return Path("/var/tmp" if Path("/var/tmp").is_dir() else tempfile.gettempdir(), f"image-uploads-{name}")  # noqa: S108 # made private, and checked to be ours, before use

    def remove(self) -> None:
        """It is stopped, and its directory and data are gone."""
        super().remove()
        shutil.rmtree(self.data, ignore_errors=True)

    @cached_property
    def _user(self) -> str | None:
        if os.geteuid() != 0:
            return None
        names = {account.pw_name for account in pwd.getpwall()}
        return "postgres" if "postgres" in names else "nobody"

    def _prepare(self, ports: Mapping[str, int]) -> None:  # noqa: ARG002 # its port is on its command line
        self.directory.mkdir(parents=True, exist_ok=True)
        self._make_data_directory()
        if (self.data / "PG_VERSION").exists():
            return
        command = [
            str(_program("initdb")),
            f"--pgdata={self.data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            # Databases in production seldom sort by bytes: what relies on that must say so, and is found out here.
            "--locale-provider=icu",
            "--icu-locale=en-US",
            "--no-sync",
        ]
        subprocess.run(command, cwd="/", check=True, capture_output=True, **as_user(self._user))

    def _make_data_directory(self) -> None:
        note = self.directory / "data-is-elsewhere.txt"
        if self.data.parent != self.directory and not note.exists():
            # Whoever removed the directory meant its data as well.
            shutil.rmtree(self.data, ignore_errors=True)
            note.write_text(f"{self._user} may not enter this directory, so the data is in {self.data}\n")
        self.data.mkdir(mode=0o700, exist_ok=True)
        if self._user is not None:
            owner = self.data.lstat().st_uid
            account = pwd.getpwnam(self._user)
            if owner not in (0, account.pw_uid) or self.data.is_symlink():
                raise PermissionError(f"{self.data} belongs to somebody else: remove it")
            os.chown(self.data, account.pw_uid, account.pw_gid)

    def _programs(self, ports: Mapping[str, int]) -> Sequence[Program]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            **self._settings,
        }
        command = [str(_program("postgres")), "-D", str(self.data), "-p", str(ports["postgres"])]
        server = Program(
            name="postgres",
            command=[*command, *(f"--{name}={value}" for name, value in settings.items())],
            log=self.directory / "postgres.log",
            port=ports["postgres"],
            ready_line="database system is ready to accept connections",
            user=self._user,
            stop_signal=signal.SIGINT,  # "fast": sessions are ended, then it stops in order
            # "immediate" is a crash for the data. SIGKILL would also leave its children behind for a moment, and the
            # next start refuses while one of them has the shared memory.
            crash_signal=signal.SIGQUIT,
        )
        return (server,)


def ask(database_url: str, statement: str) -> object:
    """The first value that the statement returns, if any; it ran in no transaction of ours."""

    async def session() -> object:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:  # this thread may have a running event loop already
        return thread.submit(asyncio.run, session()).result()


def _program(name: str) -> Path:
    found = [path for place in _PLACES for path in Path("/").glob(f"{place.lstrip('/')}/{name}")]
    if not found and (on_path := shutil.which(name)):
        found = [Path(on_path)]
    if not found:
        raise NotInstalledError(f"PostgreSQL's {name}")
    return max(found, key=_version)


def _version(program: Path) -> float:
    digits = program.parent.parent.name.rpartition("@")[2]
    try:
        return float(digits)
    except ValueError:
        return 0


def _may_enter(user: str, directory: Path) -> bool:
    looked = subprocess.run(["test", "-x", str(directory)], cwd="/", check=False, **as_user(user))
    return looked.returncode == 0
