"""Operating-system processes that outlive the object that started them: known by pid, start time and log."""

import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Self, TypedDict

# Below what Linux (32768) and macOS (49152) hand out by themselves, so that no outgoing connection takes one of
# them between our look and the server's bind.
_PORTS = range(20_000, 32_000)
_LOG_LINES_SHOWN = 15
_PORT_TAKEN = re.compile(r"eaddrinuse|already.in.use", re.IGNORECASE)

_children: dict[int, subprocess.Popen[bytes]] = {}


class AsUser(TypedDict, total=False):
    """Arguments of `subprocess.Popen`."""

    user: int
    group: int
    extra_groups: list[int]


class NotInstalledError(Exception):
    """A program that the sandbox runs is not on this machine."""

    def __init__(self, program: str) -> None:
        super().__init__(f"{program} is not installed: run `sandbox/setup services`")


class DidNotStartError(Exception):
    """A program ended, or stayed silent, before it was ready. The message ends with the last lines of its log.

    Attributes:
        lost_its_port: Another program was quicker to take one of its ports, so other ports may do.
    """

    def __init__(self, program: str, log: Path) -> None:
        said = log.read_text(errors="replace")
        self.lost_its_port = _PORT_TAKEN.search(said) is not None
        super().__init__(f"{program} did not start. Its log ({log}) ends:\n{_last_lines(said)}")


@contextmanager
def signals_wait() -> Iterator[None]:
    """SIGINT and SIGTERM that come inside are raised when the block is left; in the main thread, which alone has them.

    They are not blocked: a child would start with them blocked.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in usual:
        signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        for caught in came:
            signal.raise_signal(caught)


@dataclass(frozen=True)
class Process:
    """One process, whoever started it. The start time keeps a pid that is used again from being mistaken for it."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that has this pid now; None when there is none."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        return _start_time(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """It has been sent the signal, unless it is gone."""
        if self.alive:
            os.kill(self.pid, number)

    def end(self, number: signal.Signals, timeout_s: float = 30) -> None:
        """It is gone: by the signal, or after `timeout_s` by SIGKILL."""
        self.send(number)
        if not eventually(lambda: not self.alive, timeout_s):
            self.send(signal.SIGKILL)
            eventually(lambda: not self.alive, timeout_s)


@dataclass(frozen=True, kw_only=True)
class Program:
    """How to run one program, to tell that it is ready, and to end it."""

    name: str
    command: Sequence[str]
    log: Path
    port: int
    ready_line: str | None = None
    """What its log says when it is ready; None: it is ready when its port accepts a connection."""
    cwd: Path = Path("/")
    env: Mapping[str, str] = field(default_factory=dict)
    """All of its environment, except PATH and the locale: it sees no setting of ours."""
    user: str | None = None
    """The account that it runs as; None: the caller's. Only root may name one."""
    stop_signal: signal.Signals = signal.SIGTERM
    crash_signal: signal.Signals = signal.SIGKILL

    def launch(self) -> Process:
        """It has been started, with an empty log; the log of the run before is kept beside it.

        It is the leader of its own session, so that Ctrl-C on a terminal reaches only us, who stop it in order.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        with self.log.open("wb") as log:
            child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.cwd,
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **self.env},
                start_new_session=True,
                **as_user(self.user),
            )
        _children[child.pid] = child
        return Process(child.pid, _start_time(child.pid) or "gone already")

    def await_ready(self, process: Process, timeout_s: float = 120) -> None:
        """It is ready.

        Raises:
            DidNotStartError: It ended instead, or needs longer than `timeout_s`.
        """
        eventually(lambda: self._is_ready() or not process.alive, timeout_s)
        if not (process.alive and self._is_ready()):
            raise DidNotStartError(self.name, self.log)

    def _is_ready(self) -> bool:
        if self.ready_line is None:
            return accepts_connections(self.port)
        return self.ready_line.encode() in self.log.read_bytes()


class _Entry(TypedDict):
    pid: int
    started: str


class _Content(TypedDict):
    ports: dict[str, int]
    processes: dict[str, _Entry]


class Ledger:
    """A JSON file that says which ports a service has and which of its processes were started, by anybody."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ports(self) -> dict[str, int]:
        """The ports that were chosen before; none at first."""
        return self._read()["ports"]

    def process(self, name: str) -> Process | None:
        """The process of that name, if it is alive."""
        entry = self._read()["processes"].get(name)
        process = Process(**entry) if entry else None
        return process if process and process.alive else None

    def keep_ports(self, ports: Mapping[str, int]) -> None:
        """These are the ports from now on, also over restarts."""
        self._write({"ports": dict(ports), "processes": self._read()["processes"]})

    def keep_process(self, name: str, process: Process) -> None:
        """Anybody who reads the file can find the process."""
        content = self._read()
        content["processes"][name] = {"pid": process.pid, "started": process.started}
        self._write(content)

    def forget_processes(self) -> None:
        """No process is known any more."""
        self._write({"ports": self.ports(), "processes": {}})

    def _read(self) -> _Content:
        try:
            content: _Content = json.loads(self._path.read_text())
        except FileNotFoundError:
            content = {"ports": {}, "processes": {}}
        return content

    def _write(self, content: _Content) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(content, indent=2) + "\n")
        draft.replace(self._path)  # a reader sees the old file or the new one, never half of it


def eventually(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.02) -> bool:
    """Whether the condition came true within `timeout_s`; it is looked at every `every_s`."""
    deadline = time.monotonic() + timeout_s
    while not (came_true := condition()) and time.monotonic() < deadline:
        time.sleep(every_s)
    return came_true


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on; somebody else may still take it first."""
    candidates = list(_PORTS)
    SystemRandom().shuffle(candidates)
    return next(port for port in candidates if is_free(port))


def is_free(port: int) -> bool:
    """Whether a server could bind the port on 127.0.0.1."""
    with socket.socket() as probe:
        # What servers set as well: without it a port counts as taken for a minute after a crash.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on the port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _last_lines(said: str) -> str:
    return "\n".join(f"    {line}" for line in said.splitlines()[-_LOG_LINES_SHOWN:]) or "    (nothing)"


def as_user(name: str | None) -> AsUser:
    """What makes `subprocess` run a program with the rights of this account only; None: of the caller."""
    if name is None:
        return {}
    account = pwd.getpwnam(name)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _start_time(pid: int) -> str | None:
    started = _start_time_by_proc(pid) if sys.platform == "linux" else _start_time_by_ps(pid)
    if started is None and (child := _children.pop(pid, None)):
        child.wait()  # a zombie until now
    return started


def _start_time_by_proc(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it, in parentheses, may hold anything
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started


def _start_time_by_ps(pid: int) -> str | None:
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if len(answer) != 2 or answer[0].startswith("Z") else answer[1].strip()  # noqa: PLR2004 # two columns
