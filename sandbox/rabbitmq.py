"""A private RabbitMQ node: own ports, own Erlang port mapper, own cookie, data in a directory."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from sandbox.process import NotInstalledError, Program
from sandbox.service import Service

_HOMES = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin")


class RabbitMQ(Service):
    """A RabbitMQ node on 127.0.0.1, as `sandbox/setup services` installs it.

    `SANDBOX_RABBITMQ_SERVER` names the `rabbitmq-server` of another installation to use instead.
    """

    title = "RabbitMQ"
    port_names: ClassVar[Sequence[str]] = ("amqp", "distribution", "epmd")
    # Every node has a port mapper of its own, so one name does for all; and the data, which is filed under the name,
    # can be found again when a port has to change.
    node = "sandbox@localhost"

    @property
    def url(self) -> str:
        """Its default virtual host."""
        return self.vhost_url("/")

    def vhost_url(self, name: str) -> str:
        """Where to find a virtual host of this node, whether or not it exists."""
        return f"amqp://guest:guest@127.0.0.1:{self.ports['amqp']}/{quote(name, safe='')}"

    def add_vhost(self, name: str) -> str:
        """The virtual host exists and `guest` may do everything in it; its URL.

        Asks the node itself (about 50 ms); `rabbitmqctl` needs two calls of more than a second each.
        """
        vhost, user, everything = _binary(name), _binary("guest"), _binary(".*")
        permissions = f"{user}, {vhost}, {everything}, {everything}, {everything}, {user}"
        self._do(f"rabbit_vhost:add({vhost}, {user}), rabbit_auth_backend_internal:set_permissions({permissions})")
        return self.vhost_url(name)

    def delete_vhost(self, name: str) -> None:
        """The virtual host is gone, with its queues, and its connections are closed."""
        self._do(f"rabbit_vhost:delete({_binary(name)}, {_binary('guest')})")

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` printed.

        Raises:
            subprocess.CalledProcessError: It failed; what it said is in `stderr`.
        """
        command = [str(_server().with_name("rabbitmqctl")), "--quiet", *arguments]
        return _output(command, self._environment(self.ports))

    def evaluate(self, expressions: str) -> str:
        """What the last of these Erlang expressions is, on the node, in Erlang's notation.

        Raises:
            RuntimeError: One of them failed.
            subprocess.SubprocessError: The node did not answer.
        """
        command = [_erlang("erl_call"), "-sname", self.node, "-e"]
        answer = _output(command, self._environment(self.ports), f"{expressions}.\n")
        if not answer.startswith("{ok, "):
            raise RuntimeError(f"RabbitMQ answered {answer} to {expressions}")
        return answer.removeprefix("{ok, ").removesuffix("}")

    def _do(self, expressions: str) -> None:
        if (answer := self.evaluate(expressions)) != "ok":
            raise RuntimeError(f"RabbitMQ answered {answer} to {expressions}")

    def _prepare(self, ports: Mapping[str, int]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(20))
            cookie.chmod(0o400)  # Erlang refuses a cookie that others can read
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{ports['amqp']}\n"
            "disk_free_limit.absolute = 50MB\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
        )

    def _programs(self, ports: Mapping[str, int]) -> Sequence[Program]:
        environment = self._environment(ports)
        mapper = Program(
            name="epmd",
            command=[_erlang("epmd"), "-address", "127.0.0.1", "-port", str(ports["epmd"])],
            log=self.directory / "epmd.log",
            port=ports["epmd"],
            cwd=self.directory,
            env=environment,
        )
        node = Program(
            name="rabbitmq",
            # With both, the start script becomes the node instead of waiting for it: the pid is the node's own.
            command=[str(_server()), "-noinput"],
            log=self.directory / "rabbitmq.log",
            port=ports["amqp"],
            ready_line="Server startup complete",
            cwd=self.directory,
            env={**environment, "RABBITMQ_ALLOW_INPUT": "1"},
        )
        return (mapper, node)

    def _environment(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {
            "HOME": str(self.directory),
            # Every Erlang program starts a port mapper in the background if it finds none: nobody would ever stop it.
            # Not ERL_FLAGS, which the rabbitmqctl of RabbitMQ 4 overwrites.
            "ERL_ZFLAGS": "-start_epmd false",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(ports["epmd"]),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(ports["distribution"]),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "no-rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory),
            "RABBITMQ_LOGS": "-",
        }


def _server() -> Path:
    named = os.environ.get("SANDBOX_RABBITMQ_SERVER")
    candidates = [Path(named)] if named else [Path(home, "rabbitmq-server") for home in _HOMES]
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return candidate
    raise NotInstalledError("RabbitMQ")


def _erlang(program: str) -> str:
    path = shutil.which(program) or next(
        (
            str(found)
            for home in ("/usr/lib/erlang", "/opt/homebrew/lib/erlang", "/usr/local/lib/erlang")
            for found in sorted(Path(home).glob(f"erts-*/bin/{program}"))
        ),
        None,
    )
    if path is None:
        raise NotInstalledError(f"Erlang's {program}")
    return path


def _binary(text: str) -> str:
    """The text as an Erlang binary in Erlang's own notation, whatever is in it."""
    return f"<<{','.join(map(str, text.encode()))}>>"


def _output(command: Sequence[str], environment: Mapping[str, str], typed: str = "") -> str:
    env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **environment}
    done = subprocess.run(command, env=env, check=True, text=True, capture_output=True, input=typed, timeout=60)
    return done.stdout.strip()
