"""All that a worker needs around it, in one directory: RabbitMQ, PostgreSQL and the OSS-protocol server."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.object_store import ObjectStore
from sandbox.postgres import Postgres
from sandbox.rabbitmq import RabbitMQ


class System:
    """The three services of a directory, and the settings that lead a worker to them.

    Args:
        directory: Where everything of theirs is; made when missing.
        attached: They die with this process, however that ends. Otherwise they stay until they are stopped.
    """

    def __init__(self, directory: Path, *, attached: bool) -> None:
        self._directory = directory.absolute()
        self.postgres = Postgres(self._directory / "postgres", attached=attached)
        self.object_store = ObjectStore(self._directory / "oss", attached=attached)
        self.rabbitmq = RabbitMQ(self._directory / "rabbitmq", attached=attached)

    @property
    def temp_dir(self) -> Path:
        """What generators and workers share."""
        return self._directory / "temp"

    def up(self, tell: Callable[[str], None]) -> None:
        """Everything answers. What ran before was left alone; `tell` hears about the rest.

        Raises:
            DidNotStartError: A service did not come up; those that this call started are stopped again.
            NotInstalledError: A program is missing; likewise.
        """
        with self._alone():
            started = []
            try:
                for service in (self.postgres, self.object_store, self.rabbitmq):
                    if not service.running:
                        tell(f"starting {service.title}")
                        started.append(service)
                    service.start()
                self.postgres.add_database("image_uploads")
                self.temp_dir.mkdir(exist_ok=True)
            except BaseException:
                for service in started:
                    service.stop()
                raise

    def down(self, tell: Callable[[str], None]) -> None:
        """Nothing of it runs; data is kept."""
        if not self._directory.exists():
            return
        with self._alone():
            for service in (self.rabbitmq, self.object_store, self.postgres):
                if service.processes:
                    tell(f"stopping {service.title}")
                service.stop()

    def environment(self) -> dict[str, str]:
        """The settings of a worker that uses it."""
        return {
            "AMQP_URL": self.rabbitmq.url,
            "DATABASE_URL": self.postgres.database_url("image_uploads"),
            "OSS_BUCKET": self.object_store.bucket,
            "OSS_REGION": self.object_store.region,
            "OSS_ACCESS_KEY": self.object_store.access_key,
            "OSS_SECRET": self.object_store.secret,
            "OSS_ENDPOINT": self.object_store.url,
            "OSS_BASE_URL": self.object_store.public_url,
            "TEMP_DIR": str(self.temp_dir),
            "SOURCE_ALLOWED_NETWORKS": "127.0.0.0/8",
        }

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Another `up` or `down` of this directory waits until this one is done."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
