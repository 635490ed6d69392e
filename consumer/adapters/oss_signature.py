"""Signature version 4 of OSS, in the header of a request.

`oss2` computes the same in three ways that are all its own business to call, or as a query by `sign_url`, which costs
as much CPU as sending 100 KB does; it signs whatever is not sent once per event.
Source: OSS API reference, "Include signatures in the Authorization header (V4)".
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

_ALGORITHM: Final = "OSS4-HMAC-SHA256"
_REQUEST: Final = "aliyun_v4_request"
_UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_ALSO_SIGNED: Final = ("content-type", "content-md5")


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs for one bucket with one set of credentials."""

    access_key: str
    secret: str = field(repr=False)
    session_token: str | None = field(repr=False)
    region: str
    bucket: str
