"""The documents that OSS and we exchange about many objects at once.

Source: OSS API reference, "DeleteMultipleObjects", "ListObjectsV2". Names come percent-encoded when asked for so, as
XML has no way to write some of the characters that they may hold.
"""

from collections.abc import Iterable
from datetime import datetime
from urllib.parse import unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from consumer.core.errors import DependencyError
from consumer.core.ports import ListedObject
from schemas.reasons import Reason


def deletion(keys: Iterable[str]) -> bytes:
    """The request to delete these keys and to name each that is gone."""
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f'<?xml version="1.0" encoding="UTF-8"?><Delete><Quiet>false</Quiet>{objects}</Delete>'.encode()


def deleted(body: bytes) -> set[str]:
    """The keys that the answer to a deletion names.

    Raises:
        DependencyError: it is no such answer.
    """
    try:
        return {unquote(element.findtext("Key", "")) for element in _document(body, "DeleteResult").iterfind("Deleted")}
    except ValueError as error:
        raise _unreadable(error) from error


def listed(body: bytes) -> tuple[list[ListedObject], bool]:
    """The objects that a page of a listing names, and whether it is the last.

    Raises:
        DependencyError: it is no such page.
    """
    try:
        page = _document(body, "ListBucketResult")
        # oss2's own parser takes nearly twice as long, and uploads stand still meanwhile.
        objects = [
            ListedObject(
                key=unquote(element.findtext("Key", "")),
                size_bytes=int(element.findtext("Size", "")),
                modified_at=datetime.fromisoformat(element.findtext("LastModified", "")),
            )
            for element in page.iterfind("Contents")
        ]
    except ValueError as error:
        raise _unreadable(error) from error
    return objects, page.findtext("IsTruncated") == "false"


def _document(body: bytes, name: str) -> ET.Element:
    try:
        document = ET.fromstring(body)  # noqa: S314 from the bucket's own service, and bounded by it
    except ET.ParseError as error:
        raise ValueError("it is no XML") from error
    if document.tag != name or document.findtext("EncodingType") != "url":
        raise ValueError(f"not a {name} in the encoding that was asked for")
    return document


def _unreadable(error: Exception) -> DependencyError:
    detail = f"OSS answered what cannot be read, or something between us and OSS did: {error}"
    return DependencyError("storage", Reason.STORAGE_UNAVAILABLE, detail)
