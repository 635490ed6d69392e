"""The private services of all fault runs: each is started when the first of them asks for it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Self

from sandbox.postgres import Postgres
from sandbox.rabbitmq import RabbitMQ


class Services:
    """RabbitMQ and PostgreSQL, which runs may stop and kill."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self._stack = stack
        self._numbers = count(1)

    @classmethod
    @contextmanager
    def opened(cls, directory: Path) -> Iterator[Self]:
        """They are there when they are asked for; afterwards nothing of them is left."""
        with ExitStack() as stack:
            yield cls(directory, stack)

    @cached_property
    def rabbitmq(self) -> RabbitMQ:
        """A node of our own."""
        rabbitmq = RabbitMQ(self.directory / "rabbitmq-faults")
        self._stack.callback(rabbitmq.remove)
        rabbitmq.start()
        return rabbitmq

    @cached_property
    def postgres(self) -> Postgres:
        """A server of our own; without fsync, which only a power cut could tell."""
        postgres = Postgres(self.directory / "postgres-faults", settings={"fsync": "off"})
        self._stack.callback(postgres.remove)
        postgres.start()
        return postgres

    def fresh_name(self) -> str:
        """A name for a virtual host, a database and a directory that no run has had."""
        return f"run-{next(self._numbers)}"
