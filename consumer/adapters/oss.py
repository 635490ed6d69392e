"""Alibaba Cloud OSS: signed by oss2, sent over one keep-alive aiohttp session, compared by CRC-64."""

from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from io import BytesIO
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

import aiohttp
import oss2
from oss2.credentials import StaticCredentialsProvider
from yarl import URL

from consumer.core.errors import DependencyError, PermanentError, TransientError, UploadError
from consumer.core.ports import Image
from consumer.core.redact import redact
from consumer.settings import OssSettings
from schemas.reasons import Reason

_CONNECT_TIMEOUT_S: Final = 10
_SILENCE_TIMEOUT_S: Final = 30
_SIGNATURE_LIVES_S: Final = 900  # what OSS allows a clock to be off
_SLICE_BYTES: Final = 256 * 1024  # a larger one over TLS stalls the loop and is copied whole
_CACHE_CONTROL: Final = "public, max-age=31536000, immutable"  # no object is ever overwritten by other bytes
_PROBE_KEY: Final = "users/.image-uploads/probe"  # under the prefix that a narrow policy grants; no key of an image
_CRC: Final = "x-oss-hash-crc64ecma"
_WORDS: Final = "x-oss-err"  # the error XML in base64, where an answer has no body
_DONE: Final = (HTTPStatus.OK, HTTPStatus.NO_CONTENT)
_KEPT: Final = ("FileAlreadyExists", "FileImmutable")  # by the bucket's own rules, which we do not ask for
_BAD_REQUEST: Final = ("InvalidObjectName", "InvalidArgument", "EntityTooLarge")
"""What OSS says of the one object; all else that it refuses, it would refuse of any.
Source: OSS API reference, "PutObject", error codes."""
_OF_SIGNATURES: Final = "0002-"
"""How the finer code (EC) of a refused signature begins: one in the wrong region is an InvalidArgument, and nobody's
object. Source: OSS documentation, "0002-00000226"."""
_TROUBLE_STATUSES: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_TROUBLE_CODES: Final = ("RequestTimeout", "LimitExceeded")  # whatever status they come with


class StorageRefusedError(DependencyError):
    """The service answers, and refuses what it would refuse of any object.

    `code` is the answer's own. `endpoint` is the host where the bucket is, when we ask in another region.
    """

    def __init__(self, refusal: "_Refusal") -> None:
        super().__init__("storage", Reason.STORAGE_REFUSED, refusal.detail)
        self.code = refusal.code
        self.endpoint = refusal.endpoint
        self.of_signature = refusal.ec.startswith(_OF_SIGNATURES)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the service knows of an object; `crc64` as rows have it."""

    size_bytes: int
    crc64: str
    modified_at: datetime


class OssStore:
    """See `ObjectStore`."""

    def __init__(self, settings: OssSettings, *, timeout_s: float) -> None:
        self.bucket = settings.oss_bucket
        self._base_url = settings.base_url
        self._url_expires_s = settings.oss_url_expires_s
        self._signed = _bucket(settings, settings.endpoint, is_cname=settings.oss_cname)
        self._links = _links(settings)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the prefetch is the limit
            timeout=aiohttp.ClientTimeout(timeout_s, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_SILENCE_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def put(self, key: str, image: Image, *, content_type: str, event_id: str) -> None:
        """The object exists under `key`, byte-identical: see `ObjectStore.put`."""
        headers = {
            "Content-Type": content_type,
            "Cache-Control": _CACHE_CONTROL,
            "Content-Length": str(image.size_bytes),
            "x-oss-meta-event-id": quote(event_id, safe=""),  # a header holds no more than ASCII
        }
        try:
            async with self._answer("PUT", key, headers, _body(image)) as response:
                _compare(image.crc64, response.headers.get(_CRC))
        except StorageRefusedError as error:
            # Where a bucket forbids to overwrite, whoever was killed before the row finds the own bytes there.
            stored = await self.head(key) if error.code in _KEPT else None
            if stored is None or stored.crc64 != str(image.crc64):
                raise

    def url(self, key: str) -> str:
        """The plain public URL: see `ObjectStore.url`."""
        return f"{self._base_url}/{quote(key, safe='/@')}"

    def link(self, key: str) -> str:
        """A URL that works when it is sent: see `ObjectStore.link`."""
        if not self._url_expires_s:
            return self.url(key)
        signed: str = self._links.sign_url("GET", key, self._url_expires_s, slash_safe=True)
        path, _, query = signed.partition("?")
        return f"{path.replace('%40', '@')}?{query}"

    async def probe(self) -> None:
        """An object can be put and deleted.

        Raises:
            UploadError: it cannot.
        """
        await self.put(_PROBE_KEY, Image(BytesIO(), 0, 0), content_type="text/plain", event_id="probe")
        await self.delete(_PROBE_KEY)

    async def delete(self, key: str) -> None:
        """There is no object under `key`: see `ObjectStore.delete`."""
        async with self._answer("DELETE", key, {}):
            pass

    async def head(self, key: str) -> StoredObject | None:
        """What the bucket has under `key`, if anything.

        Raises:
            UploadError: it does not say.
        """
        try:
            async with self._answer("HEAD", key, {}) as response:
                headers = response.headers
        except StorageRefusedError as error:
            if error.code == "NoSuchKey":
                return None
            raise
        modified_at = parsedate_to_datetime(headers["Last-Modified"])
        return StoredObject(int(headers["Content-Length"]), headers.get(_CRC, "unknown"), modified_at)

    async def read(self, url: str) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers with which a URL answers anybody who has it; redirects are followed.

        Raises:
            DependencyError: it does not answer.
        """
        try:
            async with self._session.get(URL(url, encoded=True)) as response:
                return response.status, await response.read(), response.headers
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _no_answer(error) from error

    async def close(self) -> None:
        """The session's connections are closed."""
        await self._session.close()

    @asynccontextmanager
    async def _answer(
        self, method: str, key: str, headers: dict[str, str], body: bytes | AsyncIterator[bytes] | None = None
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        url = self._signed.sign_url(method, key, _SIGNATURE_LIVES_S, headers=headers, slash_safe=True)
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,  # the body can be sent but once, and the signature is for this host
            ) as response:
                if response.status not in _DONE:
                    raise _blame(_Refusal.read(response.status, await _words(response)))
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _no_answer(error) from error


async def _words(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.read() or b64decode(response.headers.get(_WORDS, ""))
    except ValueError:
        return b""


def _links(settings: OssSettings) -> Any:  # noqa: ANN401 oss2 ships no types
    base_url = settings.oss_base_url
    if base_url and not urlsplit(base_url).path.strip("/"):
        return _bucket(settings, base_url, is_cname=True)
    # What is internal to the cloud is of no use to a browser.
    return _bucket(settings, settings.endpoint.replace("-internal.", "."), is_cname=settings.oss_cname)


def _bucket(settings: OssSettings, endpoint: str, *, is_cname: bool) -> Any:  # noqa: ANN401 oss2 ships no types
    token = settings.oss_session_token.get_secret_value() if settings.oss_session_token else None
    provider = StaticCredentialsProvider(
        settings.oss_access_key.get_secret_value(), settings.oss_secret.get_secret_value(), token
    )
    session = oss2.Session()
    session.session.trust_env = False  # neither a proxy nor a .netrc of this machine's user
    return oss2.Bucket(
        oss2.ProviderAuthV4(provider),
        endpoint,
        settings.oss_bucket,
        is_cname=is_cname,
        region=settings.oss_region,
        session=session,
        connect_timeout=_CONNECT_TIMEOUT_S,
        enable_crc=False,
    )


def _body(image: Image) -> bytes | AsyncIterator[bytes]:
    image.file.seek(0)
    return image.file.read() if image.size_bytes <= _SLICE_BYTES else _slices(image)


async def _slices(image: Image) -> AsyncIterator[bytes]:
    # Read here and now: what was just written or summed is in the page cache.
    while part := image.file.read(_SLICE_BYTES):
        yield part


def _compare(sent: int, stored: str | None) -> None:
    if stored is None:
        detail = "OSS answered without x-oss-hash-crc64ecma: something between us and OSS strips it"
        raise DependencyError("storage", Reason.STORAGE_UNAVAILABLE, detail)
    if stored != str(sent):
        detail = f"OSS stored bytes with the checksum {stored}, sent were {sent}"
        raise TransientError(Reason.STORAGE_UNAVAILABLE, detail)


def _no_answer(error: Exception) -> DependencyError:
    detail = redact(f"OSS did not answer: {type(error).__name__} {error}".strip())
    return DependencyError("storage", Reason.STORAGE_UNAVAILABLE, detail)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An answer that is not what was asked for; the service's words are in the elements of its error XML."""

    status: int
    code: str
    message: str
    ec: str
    endpoint: str

    @classmethod
    def of(cls, status: int, elements: Mapping[str, str | None]) -> Self:
        """The refusal with these elements."""
        code, message, ec, endpoint = (elements.get(name) or "" for name in ("Code", "Message", "EC", "Endpoint"))
        return cls(status, code, message, ec, endpoint)

    @classmethod
    def read(cls, status: int, body: bytes) -> Self:
        """The refusal with this body, which is no XML if something between us and the service speaks."""
        try:
            document = ET.fromstring(body)  # noqa: S314 from the bucket's own service, and bounded by it
        except ET.ParseError:
            return cls.of(status, {})
        return cls.of(status, {element.tag: element.text for element in document})

    @property
    def detail(self) -> str:
        """One line for a human."""
        return redact(f"OSS answered {self.status} {self.code}: {self.message}")


def _blame(refusal: _Refusal) -> UploadError:
    status, code = refusal.status, refusal.code
    trouble = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TROUBLE_STATUSES
    if trouble or code.endswith(_TROUBLE_CODES) or status <= 0:
        return DependencyError("storage", Reason.STORAGE_UNAVAILABLE, refusal.detail)
    if code in _BAD_REQUEST and not refusal.ec.startswith(_OF_SIGNATURES):
        return PermanentError(Reason.STORAGE_REFUSED, refusal.detail)
    return StorageRefusedError(refusal)
