"""The operations on many objects of the bucket: list them, delete them."""

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from aiohttp import web

from sandbox.oss.address import Address, check_key
from sandbox.oss.answer import Answer
from sandbox.oss.body import body_of, content_md5
from sandbox.oss.errors import OssError
from sandbox.oss.faults import Faults
from sandbox.oss.store import Page, Store, behind

_MAX_DELETE_BODY_BYTES: Final = 2 << 20
_MAX_DELETE_KEYS: Final = 1000
_MAX_LIST_KEYS: Final = 1000
_DEFAULT_LIST_KEYS: Final = "100"


async def delete_many(store: Store, faults: Faults, request: web.BaseRequest, query: Mapping[str, str]) -> Answer:
    """DeleteMultipleObjects: none of the keys in the body exists, but for those whose DELETE a rule lets fail.

    Those are not in the answer: it names what is gone.
    """
    if (request.content_length or 0) > _MAX_DELETE_BODY_BYTES:
        raise OssError("MalformedXML")
    expected_md5 = content_md5(request)
    body = b"".join([chunk async for chunk in body_of(request)])
    if expected_md5 != hashlib.md5(body, usedforsecurity=False).digest():
        raise OssError("InvalidDigest")
    text = body.decode(errors="surrogateescape")
    keys = [_unescaped(key) for key in re.findall(r"<Key>(.*?)</Key>", text, re.DOTALL)]
    if not 1 <= len(keys) <= _MAX_DELETE_KEYS:
        raise OssError("MalformedXML")
    for key in keys:
        check_key(key)
    keys = [key for key in keys if faults.take("DELETE", key) is None]
    store.delete(keys)
    if re.search(r"<Quiet>\s*true\s*</Quiet>", text):
        return Answer()
    written = _writer(query)
    deleted = "".join(f"<Deleted><Key>{written(key)}</Key></Deleted>" for key in keys)
    return _xml_answer("DeleteResult", _encoding_type(query) + deleted)


def _unescaped(text: str) -> str:
    """The text of an element. An XML parser would refuse the control characters that SDKs send as they are."""
    names = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}

    def character(match: re.Match[str]) -> str:
        hexadecimal, decimal, name = match.groups()
        return names[name] if name else chr(int(hexadecimal, 16) if hexadecimal else int(decimal))

    return re.sub(r"&(?:#x([0-9a-fA-F]{1,5})|#([0-9]{1,6})|(amp|lt|gt|quot|apos));", character, text)


def list_objects(store: Store, address: Address) -> Answer:
    """ListObjectsV2: one page."""
    query = address.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    max_keys = query.get("max-keys") or _DEFAULT_LIST_KEYS
    if not re.fullmatch(r"\d{1,4}", max_keys) or not 1 <= int(max_keys) <= _MAX_LIST_KEYS:
        raise OssError("InvalidArgument", fields={"ArgumentName": "max-keys", "ArgumentValue": max_keys})
    page = store.page(prefix, delimiter, _position(query), int(max_keys))
    written = _writer(query)
    head = {
        "Name": address.bucket,
        "Prefix": written(prefix),
        "StartAfter": written(query.get("start-after", "")),
        "ContinuationToken": written(query.get("continuation-token", "")),
        "MaxKeys": max_keys,
        "Delimiter": written(delimiter),
        "IsTruncated": "false" if page.next_position is None else "true",
        "NextContinuationToken": "" if page.next_position is None else page.next_position.hex(),
        "KeyCount": str(len(page.objects) + len(page.prefixes)),
    }
    elements = "".join(f"<{name}>{text}</{name}>" for name, text in head.items())
    return _xml_answer("ListBucketResult", elements + _encoding_type(query) + _entries(page, query))


def _position(query: Mapping[str, str]) -> bytes:
    """Where to go on; the token is that position in hexadecimal, which no encoding can spoil."""
    token = query.get("continuation-token", "")
    if not token:
        start_after = query.get("start-after", "")
        return behind(start_after.encode()) if start_after else b""
    try:
        return bytes.fromhex(token)
    except ValueError:
        raise OssError("InvalidArgument", "The continuation token provided is incorrect.") from None


def _entries(page: Page, query: Mapping[str, str]) -> str:
    written = _writer(query)
    objects = (
        f"<Contents><Key>{written(key)}</Key><LastModified>{_iso(modified_at)}</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag><Type>Normal</Type><Size>{size_bytes}</Size>"
        "<StorageClass>Standard</StorageClass></Contents>"
        for key, size_bytes, etag, modified_at in page.objects
    )
    groups = (f"<CommonPrefixes><Prefix>{written(prefix)}</Prefix></CommonPrefixes>" for prefix in page.prefixes)
    return "".join((*objects, *groups))


def _iso(epoch_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(epoch_s))


def _writer(query: Mapping[str, str]) -> Callable[[str], str]:
    return _quoted if query.get("encoding-type") == "url" else escape


def _quoted(text: str) -> str:
    return quote(text, safe="/@")  # with @ safe, our own keys need no quoting at all, which is far faster


def _encoding_type(query: Mapping[str, str]) -> str:
    return "<EncodingType>url</EncodingType>" if query.get("encoding-type") == "url" else ""


def _xml_answer(root: str, inner: str) -> Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{inner}</{root}>'.encode()
    return Answer(headers={"Content-Type": "application/xml"}, body=body)
