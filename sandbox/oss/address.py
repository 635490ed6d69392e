"""Which bucket, key and query a request is about, read from the bytes that came over the wire."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import parse_qsl, unquote_to_bytes

from sandbox.oss.errors import OssError

MAX_KEY_BYTES: Final = 1023


@dataclass(frozen=True, slots=True)
class Address:
    """Decoded exactly once; bytes of a key that are no UTF-8 are kept as lone surrogates."""

    bucket: str
    key: str
    query: Mapping[str, str]

    @classmethod
    def of(cls, host: str, target: str) -> Self:
        """The address, in path style for an IP address or a single name, else in virtual host style.

        A router or a parsed URL would lose keys: `%0A` is not routed, `//` and `..` are tidied up.
        """
        raw_path, _, raw_query = target.partition("?")
        path = unquote_to_bytes(raw_path.encode(errors="surrogateescape")).decode(errors="surrogateescape")
        if _is_path_style(host):
            bucket, _, key = path.removeprefix("/").partition("/")
        else:
            bucket, key = host.partition(".")[0], path.removeprefix("/")
        # A blank in a query comes as + from requests and as %20 from the others; a real + is always %2B.
        pairs = parse_qsl(raw_query, keep_blank_values=True)
        return cls(bucket, key, dict(pairs))


def _is_path_style(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return "." not in name
    return True


def check_key(key: str) -> None:
    """The service takes such a name.

    Raises:
        OssError: it does not. Source: OSS documentation, "Object naming conventions".
    """
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise OssError("InvalidObjectName") from None
    if size_bytes > MAX_KEY_BYTES:
        raise OssError("InvalidObjectName", "The Length of Object name must be less than 1024.")
    if not key or key.startswith(("/", "\\")):
        raise OssError("InvalidObjectName")
