"""The body of a request, and what its headers say about it."""

import base64
import hashlib
from collections.abc import AsyncIterator

from aiohttp import web

from sandbox.oss.errors import OssError


async def body_of(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """The body; only here is a client that asks first (curl above 1 MiB) told to go on."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    async for chunk in request.content.iter_any():
        yield chunk


def content_md5(request: web.BaseRequest) -> bytes | None:
    """The digest that the body must have.

    Raises:
        OssError: the header is not one.
    """
    header = request.headers.get("Content-MD5")
    if header is None:
        return None
    try:
        digest = base64.b64decode(header, validate=True)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.md5(usedforsecurity=False).digest_size:
        raise OssError("InvalidDigest", ec="0017-00000502")
    return digest
