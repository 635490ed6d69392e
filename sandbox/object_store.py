"""The OSS-protocol server (`sandbox.oss`) as a process of its own."""

import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.process import Program
from sandbox.service import Service


class ObjectStore(Service):
    """One public bucket on 127.0.0.1, with a secret that was made up for this directory."""

    title = "the OSS-protocol server"
    port_names = ("oss",)
    bucket = "sandbox-images"
    region = "cn-hangzhou"
    access_key = "sandbox-key"

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"http://127.0.0.1:{self.ports['oss']}"

    @property
    def public_url(self) -> str:
        """What stands before an object's key in its URL."""
        return f"{self.url}/{self.bucket}"

    @property
    def secret(self) -> str:
        """What requests are signed with; it was made up at the first start."""
        return self._secret_file.read_text()

    @property
    def _secret_file(self) -> Path:
        return self.directory / "secret"

    def _prepare(self, ports: Mapping[str, int]) -> None:  # noqa: ARG002 # its port is on its command line
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._secret_file.exists():
            draft = self._secret_file.with_suffix(".draft")
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_urlsafe(24))
            draft.replace(self._secret_file)

    def _programs(self, ports: Mapping[str, int]) -> Sequence[Program]:
        options = {
            "--data": self.directory / "data",
            "--bucket": self.bucket,
            "--region": self.region,
            "--access-key": self.access_key,
            "--port": ports["oss"],
        }
        server = Program(
            name="oss",
            command=[
                sys.executable,
                "-m",
                "sandbox.oss",
                *(str(word) for option in options.items() for word in option),
            ],
            log=self.directory / "oss.log",
            port=ports["oss"],
            cwd=Path(__file__).parent.parent,
            env={"SANDBOX_OSS_SECRET": self.secret},
        )
        return (server,)
