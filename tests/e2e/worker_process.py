"""The worker as what it is in production: a process that is started, asked how it is, and sent signals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from sandbox.process import eventually

ROOT: Final = Path(__file__).parents[2]

_START_TIMEOUT_S: Final = 60
_STOP_TIMEOUT_S: Final = 40  # more than the drain timeout


def basics(home: Path) -> dict[str, str]:
    """What a program needs of the environment to run the code of this very tree, and no setting of ours."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}


class WorkerProcess:
    """`python -m consumer worker` with exactly these settings, in a directory without `.env`.

    Args:
        env: Its settings; METRICS_PORT is 0, so that it takes any free port, and LOG_FORMAT is json.
        directory: Its working directory, where its log is.
    """

    def __init__(self, env: Mapping[str, str], directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.env = {**basics(directory), "METRICS_PORT": "0", "LOG_FORMAT": "json", **env}
        self._log = directory / "worker.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "consumer", "worker"],
                cwd=directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

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
        """Where it serves /metrics, /healthz and /readyz; None until it does."""
        lines = self.lines("serving /metrics, /healthz and /readyz")
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
        assert self.alive, f"the worker ended with {self._process.returncode}:\n{self.log}"
        assert self.get("/readyz")[0] == 200, f"the worker is not ready: {self.get('/readyz')}\n{self.log}"

    def await_end(self) -> int:
        """It has ended by itself, or is killed; its exit code."""
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def terminate(self) -> None:
        """It has been sent SIGTERM, and may still be draining."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """It has drained and ended after SIGTERM; its exit code."""
        self.terminate()
        return self.await_end()

    def kill(self) -> None:
        """It is gone, without a chance to finish anything."""
        self._process.kill()
        self._process.wait()
