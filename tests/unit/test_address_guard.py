import socket
from ipaddress import ip_network

import pytest

from consumer.adapters.address_guard import AddressGuard, ForbiddenAddressError
from consumer.core.errors import PermanentError

FORBIDDEN = (
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.100.100.200", "100.64.0.1", "168.63.129.16", "192.0.0.1", "198.18.0.1", "224.0.0.1"),
    *("240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
)
PUBLIC = ("1.1.1.1", "8.8.8.8", "47.110.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "192.0.0.9")


@pytest.mark.parametrize("address", FORBIDDEN)
def test_what_only_this_machine_reaches_is_forbidden_and_the_setting_is_named(address: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="SOURCE_ALLOWED_NETWORKS"):
        AddressGuard((), ()).check_address(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address: str) -> None:
    AddressGuard((), ()).check_address(address)


def test_an_allowed_network_is_allowed_and_no_other() -> None:
    guard = AddressGuard((), (ip_network("127.0.0.0/8"), ip_network("fd00::/8")))
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "fd00:ec2::254"):
        guard.check_address(address)
    with pytest.raises(ForbiddenAddressError):
        guard.check_address("10.0.0.1")


def test_no_socket_is_made_for_a_forbidden_address() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))
    with pytest.raises(ForbiddenAddressError):
        AddressGuard((), ()).make_socket(info)
    AddressGuard((), (ip_network("169.254.0.0/16"),)).make_socket(info).close()


@pytest.mark.parametrize("host", ["cdn.test", "CDN.test.", "a.images.test", "deep.er.images.test"])
def test_listed_hosts_and_their_subdomains_are_allowed(host: str) -> None:
    AddressGuard(("cdn.test", ".images.test"), ()).check_host(host)


@pytest.mark.parametrize("host", ["a.cdn.test", "images.test", "evilimages.test", "cdn.test.evil"])
def test_hosts_that_are_not_listed_are_refused(host: str) -> None:
    with pytest.raises(PermanentError, match="SOURCE_ALLOWED_HOSTS"):
        AddressGuard(("cdn.test", ".images.test"), ()).check_host(host)
    AddressGuard((), ()).check_host(host)
