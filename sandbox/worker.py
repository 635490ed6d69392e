"""The worker as a process, with the settings it is given and no others."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.process import Program
from sandbox.service import Service


class Worker(Service):
    """`python -m consumer worker` in a directory of its own, so that no `.env` is read.

    Args:
        directory: Where its log and ledger are; made when missing.
        settings: All that it knows of the world, except where to serve metrics.
    """

    title = "the worker"
    port_names = ("metrics",)

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        super().__init__(directory)
        self._settings = settings

    @property
    def url(self) -> str:
        """What stands before /metrics and /readyz."""
        return f"http://127.0.0.1:{self.ports['metrics']}"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.directory / "worker.log"

    def _prepare(self, ports: Mapping[str, int]) -> None:  # noqa: ARG002 # its port is among its settings
        self.directory.mkdir(parents=True, exist_ok=True)

    def _programs(self, ports: Mapping[str, int]) -> Sequence[Program]:
        code = Path(__file__).parent.parent
        program = Program(
            name="worker",
            command=[sys.executable, "-m", "consumer", "worker"],
            log=self.log,
            port=ports["metrics"],
            ready_line="taking deliveries",
            cwd=self.directory,
            env={
                "HOME": str(self.directory),
                "PYTHONPATH": str(code),
                "LOG_FORMAT": "console",
                "METRICS_PORT": str(ports["metrics"]),
                **self._settings,
            },
        )
        return (program,)
