"""The operations on one object."""

import base64
import re
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final

from aiohttp import ETag, web

from sandbox.oss.address import check_key
from sandbox.oss.answer import Answer
from sandbox.oss.body import body_of, content_md5
from sandbox.oss.errors import OssError
from sandbox.oss.store import Store, StoredObject

_KEPT_HEADERS: Final = (
    "Content-Type",
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Expires",
)


async def put(store: Store, request: web.BaseRequest, key: str) -> Answer:
    """The object is what the body says, once all of it is here and is what the headers say."""
    check_key(key)
    if request.content_length is None and "chunked" not in request.headers.get("Transfer-Encoding", ""):
        raise OssError("MissingContentLength")
    expected_md5 = content_md5(request)
    _check_overwrite(store, request, key)
    with store.receive() as incoming:
        async for chunk in body_of(request):
            incoming.write(chunk)
        if expected_md5 not in (None, incoming.md5.digest()):
            raise OssError("InvalidDigest", "The Content-MD5 you specified did not match what we received.")
        _check_overwrite(store, request, key)  # once more: another may have been faster
        stored = store.commit(key, incoming, _headers_to_keep(request))
    return Answer(headers=_sums(stored))


def _check_overwrite(store: Store, request: web.BaseRequest, key: str) -> None:
    if request.headers.get("x-oss-forbid-overwrite", "").lower() == "true" and store.find(key) is not None:
        raise OssError("FileAlreadyExists")


def _headers_to_keep(request: web.BaseRequest) -> dict[str, str]:
    kept = {name: request.headers[name] for name in _KEPT_HEADERS if name in request.headers}
    meta = {name.lower(): value for name, value in request.headers.items() if name.lower().startswith("x-oss-meta-")}
    return {"Content-Type": "application/octet-stream", **kept, **meta}


def _sums(stored: StoredObject) -> dict[str, str]:
    return {
        "ETag": f'"{stored.etag}"',
        "Content-MD5": base64.b64encode(bytes.fromhex(stored.etag)).decode(),
        "x-oss-hash-crc64ecma": stored.crc64,
    }


def _describe(stored: StoredObject) -> dict[str, str]:
    return {
        **stored.headers,
        **_sums(stored),
        "Last-Modified": formatdate(stored.modified_at, usegmt=True),
        "Accept-Ranges": "bytes",
        "x-oss-object-type": "Normal",
        "x-oss-storage-class": "Standard",
    }


def _existing(store: Store, key: str) -> StoredObject:
    check_key(key)
    stored = store.find(key)
    if stored is None:
        raise OssError("NoSuchKey", fields={"Key": key})
    return stored


def get(store: Store, request: web.BaseRequest, key: str) -> Answer:
    """The object, or the part of it that was asked for."""
    stored = _existing(store, key)
    if _is_unchanged(request, stored):
        return Answer(304, _describe(stored))
    headers = _describe(stored)
    wanted = request.headers.get("Range", "")
    window = _window(wanted, stored.size_bytes, strict=request.headers.get("x-oss-range-behavior") == "standard")
    start, stop = window or (0, stored.size_bytes)
    if window:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size_bytes}"
    file = store.open(stored)
    file.seek(start)
    return Answer(206 if window else 200, headers, file=file, length=stop - start)


def head(store: Store, request: web.BaseRequest, key: str) -> Answer:
    """What the object would be sent with."""
    stored = _existing(store, key)
    status = 304 if _is_unchanged(request, stored) else 200
    return Answer(status, _describe(stored), length=stored.size_bytes)


def delete(store: Store, key: str) -> Answer:
    """There is no such object, whether there was one or not."""
    check_key(key)
    store.delete([key])
    return Answer(204)


def _is_unchanged(request: web.BaseRequest, stored: StoredObject) -> bool:
    """Whether the caller has this very object already (304).

    Raises:
        OssError: it asked for another one only (412).
    """
    modified_at = datetime.fromtimestamp(stored.modified_at, UTC)
    if request.if_match is not None and not _names(request.if_match, stored):
        raise OssError("PreconditionFailed")
    if request.if_unmodified_since is not None and modified_at > request.if_unmodified_since:
        raise OssError("PreconditionFailed")
    if request.if_none_match is not None:  # the stronger of the two decides: RFC 9110, 13.2.2
        return _names(request.if_none_match, stored)
    return request.if_modified_since is not None and modified_at <= request.if_modified_since


def _names(etags: tuple[ETag, ...], stored: StoredObject) -> bool:
    return any(etag.value in ("*", stored.etag) for etag in etags)


def _window(wanted: str, size_bytes: int, *, strict: bool) -> tuple[int, int] | None:
    """First byte and the one behind the last; None: everything.

    Source: OSS documentation, "Range download": a range beyond the object is ignored, unless
    `x-oss-range-behavior: standard` asks for what HTTP says.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if match is None or match.group() == "bytes=-":
        return None
    first, last = match.groups()
    if first:
        start, stop = int(first), int(last) + 1 if last else size_bytes
    else:
        start, stop = size_bytes - int(last), size_bytes
    if 0 <= start < stop <= size_bytes:
        return start, stop
    if not strict:
        return None
    start, stop = max(start, 0), min(stop, size_bytes)
    if start >= stop:
        raise OssError("InvalidRange", fields={"RangeRequested": wanted, "ActualObjectSize": str(size_bytes)})
    return start, stop
