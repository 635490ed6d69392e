"""Which hosts and addresses may be fetched from.

Whoever publishes an event chooses a URL that this machine will open. The guard looks three times: at the URL, at what
DNS answers, and at the address of the socket that is about to be made, so that neither an address written into the
URL nor a name that changes its mind gets around it.
"""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from ssrfguard import DEFAULT_DENIED, AddressTable, Block, Reach

from consumer.core.errors import PermanentError
from consumer.settings import Network
from schemas.reasons import Reason

_LONGEST_NAME: Final = 253  # that DNS has; a URL may hold more

Address: TypeAlias = IPv4Address | IPv6Address

# The table follows IANA's registries; one cloud keeps its metadata service on an address that IANA calls public.
_DENIED: Final = AddressTable(
    (
        *DEFAULT_DENIED.blocks,
        Block(ip_network("168.63.129.16/32"), "Azure platform services", "Azure documentation", Reach.DENIED),
    )
)


class ForbiddenAddressError(OSError):
    """An address that may not be fetched from; an `OSError`, since that is what clients expect a socket to raise."""


class AddressGuard:
    """The policy of SOURCE_ALLOWED_HOSTS and SOURCE_ALLOWED_NETWORKS."""

    def __init__(self, hosts: Sequence[str], networks: Sequence[Network]) -> None:
        self._hosts = tuple(host.lower().rstrip(".") for host in hosts)
        self._networks = tuple(networks)

    def check_host(self, host: str) -> None:
        """The host may be asked for an image.

        Raises:
            PermanentError: it is none of SOURCE_ALLOWED_HOSTS.
        """
        name = host.lower().rstrip(".")
        if self._hosts and not any(_matches(name, allowed) for allowed in self._hosts):
            raise PermanentError(
                Reason.SOURCE_FORBIDDEN, f"the host {name[:_LONGEST_NAME]} is none of SOURCE_ALLOWED_HOSTS"
            )

    def check_address(self, address: str) -> None:
        """The address may be connected to.

        Raises:
            ForbiddenAddressError: it is private, loopback or reserved, and in none of SOURCE_ALLOWED_NETWORKS.
        """
        parsed = ip_address(address.partition("%")[0])
        plain = (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
        if any(plain in network for network in self._networks):
            return
        verdict = _DENIED.classify(parsed)
        if verdict.blocked:
            raise ForbiddenAddressError(
                f"the address {parsed} may not be fetched from: {verdict.reason}; "
                "add its range to SOURCE_ALLOWED_NETWORKS to allow it"
            )

    def make_socket(self, info: AddrInfoType) -> socket.socket:
        """A socket for an address that was checked.

        Raises:
            ForbiddenAddressError: as `check_address`.
        """
        family, kind, protocol, _, address = info
        self.check_address(address[0])
        return socket.socket(family, kind, protocol)


class GuardedResolver(AbstractResolver):
    """DNS whose answers are checked, all of them: a name with one forbidden address is forbidden."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The host's addresses.

        Raises:
            ForbiddenAddressError: one of them may not be fetched from.
        """
        results = await self._resolver.resolve(host, port, family)
        for result in results:
            self._guard.check_address(result["host"])
        return results

    async def close(self) -> None:
        """Nothing is left open."""
        await self._resolver.close()


def _matches(name: str, allowed: str) -> bool:
    return name.endswith(allowed) if allowed.startswith(".") else name == allowed
