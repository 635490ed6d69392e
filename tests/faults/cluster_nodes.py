"""Three RabbitMQ nodes on 127.0.0.1 that are one cluster."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sandbox.process import Program, eventually
from sandbox.rabbitmq import RabbitMQ
from sandbox.service import Service

_SIZE: Final = 3  # what a quorum queue is spread over by default
_JOIN_TIMEOUT_S: Final = 90
_LOOK_EVERY_S: Final = 0.2
# What moves from one quorum queue into another while either loses its leader is moved again only once a confirmation
# was waited for in vain. The three minutes that are usual lose nothing, but outlast a test's patience.
_IMPATIENT: Final = "-rabbit dead_letter_worker_publisher_confirm_timeout 10000"


class PortMapper(Service):
    """Erlang's register of node names, which the nodes of a cluster must share."""

    title = "epmd"
    port_names = ("epmd",)

    @property
    def url(self) -> str:
        """Where nodes ask for each other."""
        return f"127.0.0.1:{self.ports['epmd']}"

    def _prepare(self, ports: Mapping[str, int]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)

    def _programs(self, ports: Mapping[str, int]) -> Sequence[Program]:
        mapper, _node = RabbitMQ(self.directory)._programs({"amqp": 0, "distribution": 0, **ports})
        return (mapper,)


class Node(RabbitMQ):
    """One of the cluster; the first that ever starts is it, and the others join it."""

    port_names = ("amqp", "distribution")

    def __init__(self, directory: Path, node: str, mapper: PortMapper) -> None:
        super().__init__(directory)
        self.node = node
        self._mapper = mapper

    def _prepare(self, ports: Mapping[str, int]) -> None:
        super()._prepare(ports)
        with (self.directory / "rabbitmq.conf").open("a") as conf:
            conf.write("cluster_formation.peer_discovery_backend = classic_config\n")
            conf.write("cluster_partition_handling = pause_minority\n")  # what its documentation advises for three
            # Not those after it: from RabbitMQ 4 on, a new node waits for minutes for those that are not up.
            known = _names()[: _names().index(self.node) + 1]
            for number, name in enumerate(known, start=1):
                conf.write(f"cluster_formation.classic_config.nodes.{number} = {name}\n")

    def _programs(self, ports: Mapping[str, int]) -> Sequence[Program]:
        _mapper, node = super()._programs({**self._mapper.ports, **ports})
        return (node,)

    def _environment(self, ports: Mapping[str, int]) -> dict[str, str]:
        environment = super()._environment({**self._mapper.ports, **ports})
        return environment | {
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{environment['RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS']} {_IMPATIENT}"
        }


class Cluster:
    """Three nodes in a directory; whatever is declared on one is there on all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mapper = PortMapper(directory / "epmd")
        self.nodes: Final = [Node(directory / name.partition("@")[0], name, self._mapper) for name in _names()]

    @contextmanager
    def opened(self) -> Iterator["Cluster"]:
        """All nodes are up and joined; afterwards nothing of them is left."""
        cookie = secrets.token_hex(20)
        try:
            self._mapper.start()
            for node in self.nodes:
                _keep_cookie(node.directory, cookie)
            first, *others = self.nodes
            first.start()
            with ThreadPoolExecutor() as pool:
                list(pool.map(Node.start, others))
            yield self
        finally:
            for service in (*self.nodes, self._mapper):
                service.remove()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where each node takes clients, whether or not it lives."""
        return [("127.0.0.1", node.ports["amqp"]) for node in self.nodes]

    def leader(self, vhost: str, queue: str) -> Node:
        """The node on which the quorum queue is worked off.

        Raises:
            LookupError: The queue has no leader at the moment.
        """
        name = f"'{vhost}_{queue}'"
        for asked in self.nodes:
            if asked.running:
                answer = asked.evaluate(
                    f"case ra:members({{{name}, node()}}) of {{ok, _, {{_, N}}}} -> N; _ -> none end"
                )
                for node in self.nodes:
                    if answer.strip("'") == node.node:
                        return node
        raise LookupError(f"{queue} has no leader")

    def members(self, vhost: str, queue: str) -> int:
        """On how many living nodes the quorum queue lives."""
        name = f"'{vhost}_{queue}'"
        return sum(node.running and node.evaluate(f"is_pid(whereis({name}))") == "true" for node in self.nodes)

    def await_whole(self) -> None:
        """Every node is back, and no quorum queue would miss one that is killed now.

        Raises:
            TimeoutError: It takes too long.
        """
        if not eventually(self._is_whole, _JOIN_TIMEOUT_S, every_s=_LOOK_EVERY_S):
            raise TimeoutError(f"the cluster was not whole after {_JOIN_TIMEOUT_S} s")

    def _is_whole(self) -> bool:
        try:
            return all(node.running and node.evaluate(_NOBODY_IS_NEEDED) == "true" for node in self.nodes)
        except (RuntimeError, OSError):
            return False


# What `rabbitmq-queues check_if_node_is_quorum_critical` asks, at a hundredth of its price.
_NOBODY_IS_NEEDED: Final = (
    f"length(nodes()) =:= {_SIZE - 1} andalso rabbit_quorum_queue:list_with_minimum_quorum() =:= []"
)


def _names() -> list[str]:
    return [f"rabbit-{number}@localhost" for number in range(1, _SIZE + 1)]


def _keep_cookie(directory: Path, cookie: str) -> None:
    directory.mkdir(parents=True, mode=0o700, exist_ok=True)
    file = directory / ".erlang.cookie"
    file.touch(mode=0o600)
    file.write_text(cookie)
    file.chmod(0o400)  # Erlang refuses a cookie that others can read
