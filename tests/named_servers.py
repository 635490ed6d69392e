"""What the tests do on servers that somebody else runs: in a virtual host and a database of their own."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import HTTPBasicAuthHandler, HTTPPasswordMgrWithPriorAuth, Request, build_opener

import aiormq

from sandbox.postgres import ask


class Broker(Protocol):
    """A RabbitMQ server where virtual hosts can be made and dropped."""

    @property
    def url(self) -> str: ...

    def add_vhost(self, name: str) -> str:
        """The virtual host exists; its URL."""

    def delete_vhost(self, name: str) -> None:
        """The virtual host is gone."""


class NamedBroker:
    """The server of `TEST_AMQP_URL`. Virtual hosts are made through its management API.

    Args:
        url: The AMQP URL of a user who may administer the server; its virtual host is left alone.
        management_url: Where the management API is; None: on port 15672 of the same host.
    """

    def __init__(self, url: str, management_url: str | None = None) -> None:
        self.url = url
        parts = urlsplit(url)
        self._user = unquote(parts.username or "guest")
        self._api = (management_url or f"http://{parts.hostname}:15672").rstrip("/") + "/api"
        passwords = HTTPPasswordMgrWithPriorAuth()
        passwords.add_password(None, self._api, self._user, unquote(parts.password or "guest"), is_authenticated=True)
        self._opener = build_opener(HTTPBasicAuthHandler(passwords))

    def add_vhost(self, name: str) -> str:
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self._send("PUT", f"vhosts/{quote(name, safe='')}", {})
        self._send("PUT", f"permissions/{quote(name, safe='')}/{quote(self._user, safe='')}", everything)
        return with_path(self.url, name)

    def delete_vhost(self, name: str) -> None:
        self._send("DELETE", f"vhosts/{quote(name, safe='')}", {})

    def _send(self, method: str, path: str, body: dict[str, str]) -> None:
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self._api}/{path}", json.dumps(body).encode(), headers, method=method)
        try:
            self._opener.open(request, timeout=10).close()
        except HTTPError as error:
            error.close()
            raise ConnectionError(f"{self._api} answered {error.code} to {method} {path}") from None
        except URLError as error:
            raise ConnectionError(
                f"The tests make a virtual host on the server of TEST_AMQP_URL through its management API, which does"
                f" not answer at {self._api} ({error.reason}): enable rabbitmq_management, set"
                " TEST_AMQP_MANAGEMENT_URL, or unset TEST_AMQP_URL to use a private RabbitMQ."
            ) from None


def with_path(url: str, name: str) -> str:
    """The URL of another virtual host or database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(name, safe='')}"))


def rabbitmq_version(url: str) -> str:
    """What the broker says it is, e.g. `RabbitMQ 3.10.8`."""

    async def greeting() -> str:
        connection = await aiormq.connect(url)
        try:
            return str(connection.server_properties["version"])
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:  # this thread's event loop is pytest's
        return f"RabbitMQ {thread.submit(asyncio.run, greeting()).result()}"


def postgres_version(url: str) -> str:
    """What the server says it is, e.g. `PostgreSQL 15.18`."""
    version = str(ask(url, "SHOW server_version"))
    return f"PostgreSQL {version.split(maxsplit=1)[0]}"
