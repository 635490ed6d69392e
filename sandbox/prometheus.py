"""A private Prometheus: own port, its configuration and data in a directory."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode
from urllib.request import urlopen

from sandbox.process import Program
from sandbox.service import Service

_QUERY_TIMEOUT_S = 10


class Sample(NamedTuple):
    """One value of a vector, and what tells it from the others."""

    labels: Mapping[str, str]
    value: float


class Prometheus(Service):
    """A Prometheus server on 127.0.0.1, as `sandbox/setup prometheus` installs it.

    Args:
        directory: Where its configuration, data and log are; made when missing.
        configuration: The content of its `prometheus.yml`.
    """

    title = "Prometheus"
    port_names = ("prometheus",)

    def __init__(self, directory: Path, configuration: str) -> None:
        super().__init__(directory)
        self._configuration = configuration

    @property
    def url(self) -> str:
        """Its page and its API."""
        return f"http://127.0.0.1:{self.ports['prometheus']}"

    def query(self, expression: str) -> list[Sample]:
        """The vector that the expression has now, maybe an empty one.

        Raises:
            urllib.error.HTTPError: It does not understand the expression.
        """
        address = f"{self.url}/api/v1/query?{urlencode({'query': expression})}"
        with urlopen(address, timeout=_QUERY_TIMEOUT_S) as response:  # noqa: S310 # our own
            answer = json.load(response)
        return [Sample(found["metric"], float(found["value"][1])) for found in answer["data"]["result"]]

    @property
    def _file(self) -> Path:
        return self.directory / "prometheus.yml"

    def _prepare(self, ports: Mapping[str, int]) -> None:  # noqa: ARG002 # its port is on its command line
        self.directory.mkdir(parents=True, exist_ok=True)
        self._file.write_text(self._configuration)

    def _programs(self, ports: Mapping[str, int]) -> Sequence[Program]:
        server = Program(
            name="prometheus",
            command=[
                _program(),
                f"--config.file={self._file}",
                f"--storage.tsdb.path={self.directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
            ],
            log=self.directory / "prometheus.log",
            port=ports["prometheus"],
            ready_line="Server is ready to receive web requests",
            cwd=self.directory,
        )
        return (server,)


def _program() -> str:
    found = shutil.which("prometheus")
    if found is None:
        raise LookupError("Prometheus is not installed: run `sandbox/setup prometheus`")
    return found
