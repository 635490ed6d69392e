"""The product's programs as what they are in production: processes that are started, asked, and sent signals."""

import json
import os
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, ClassVar, Final

from sandbox.process import eventually
from tests import programs
from tests.programs import ROOT

_START_TIMEOUT_S: Final = 60
_STOP_TIMEOUT_S: Final = 40  # more than the drain timeout


def basics(home: Path) -> dict[str, str]:
    """What a program needs of the environment to run the code of this very tree, and no setting of ours."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}


class ProductProcess:
    """A program that runs until it is stopped, with exactly these settings, in a directory without `.env`.

    Args:
        env: Its settings; its port is any free one, and LOG_FORMAT is json, unless they say otherwise.
        directory: Its working directory, where its log is.
        fresh: It is started as somebody would who types its command; else it costs a twentieth.
    """

    name: ClassVar[str]
    command: ClassVar[Sequence[str]]
    """What follows `python -m`."""
    port_setting: ClassVar[str]
    serving: ClassVar[str]
    """The event of its log line that tells the port."""

    def __init__(self, env: Mapping[str, str], directory: Path, *, fresh: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.env = {**basics(directory), self.port_setting: "0", "LOG_FORMAT": "json", **env}
        self._log = directory / f"{self.name}.log"
        self._log.write_bytes(b"")
        self._process = programs.start(self.command, self.env, directory, self._log, fresh=fresh)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    @property
    def log(self) -> str:
        """All that it has written to standard output and standard error."""
        return self._log.read_text()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log that tell of such an event, as JSON objects."""
        written = self.log.rpartition("\n")[0]  # the last line may be half there
        lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    @property
    def port(self) -> int | None:
        """Where it answers over HTTP; None until it does."""
        lines = self.lines(self.serving)
        return int(lines[0]["port"]) if lines else None

    @property
    def url(self) -> str:
        """What stands before /metrics, /healthz and /readyz."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET; the status is 0 if nobody answers."""
        if self.port is None:
            return 0, ""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, HTTPException):
            return 0, ""
        finally:
            connection.close()

    def await_ready(self) -> None:
        """/readyz answers 200."""
        eventually(lambda: not self.alive or self.get("/readyz")[0] == 200, _START_TIMEOUT_S)
        assert self.alive, f"the {self.name} ended with {self._process.exitcode}:\n{self.log}"
        assert self.get("/readyz")[0] == 200, f"the {self.name} is not ready: {self.get('/readyz')}\n{self.log}"

    def await_end(self) -> int:
        """It has ended by itself, or is killed; its exit code."""
        self._process.join(_STOP_TIMEOUT_S)
        if self._process.exitcode is None:
            self.kill()
            raise AssertionError(f"the {self.name} did not end:\n{self.log}")
        return self._process.exitcode

    def terminate(self) -> None:
        """It has been sent SIGTERM, and may still be draining."""
        self._process.terminate()

    def stop(self) -> int:
        """It has drained and ended after SIGTERM; its exit code."""
        self.terminate()
        return self.await_end()

    def kill(self) -> None:
        """It is gone, without a chance to finish anything."""
        self._process.kill()
        self._process.join()


class WorkerProcess(ProductProcess):
    """`python -m consumer worker`."""

    name = "worker"
    command = ("consumer", "worker")
    port_setting = "METRICS_PORT"
    serving = "serving /metrics, /healthz and /readyz"


class ApiProcess(ProductProcess):
    """`python -m producer api`."""

    name = "api"
    command = ("producer", "api")
    port_setting = "API_PORT"
    serving = "serving /auth/login and /ai"
