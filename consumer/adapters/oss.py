"""Alibaba Cloud OSS: signed by oss2, sent over one keep-alive aiohttp session, compared by CRC-64."""

from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from hashlib import md5
from http import HTTPStatus
from io import BytesIO
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
import oss2
from oss2.credentials import StaticCredentialsProvider
from yarl import URL

from consumer.adapters.oss_refusal import StorageRefusedError, no_answer, refusal
from consumer.adapters.oss_xml import deleted, deletion, listed
from consumer.core.cleanup import BATCH
from consumer.core.errors import DependencyError, TransientError
from consumer.core.ports import Image, ListedObject
from consumer.settings import OssSettings
from schemas.reasons import Reason

_CONNECT_TIMEOUT_S: Final = 10
_SILENCE_TIMEOUT_S: Final = 30
_SIGNATURE_LIVES_S: Final = 900  # what OSS allows a clock to be off
_SLICE_BYTES: Final = 256 * 1024  # a larger one over TLS stalls the loop and is copied whole
_CACHE_CONTROL: Final = "public, max-age=31536000, immutable"  # no object is ever overwritten by other bytes
_PROBE_KEY: Final = "users/.image-uploads/probe"  # under the prefix that a narrow policy grants; no key of an image
_CRC: Final = "x-oss-hash-crc64ecma"
UNKNOWN_CRC64: Final = "unknown"  # of an object that was put together from parts, or long ago
_DONE: Final = (HTTPStatus.OK, HTTPStatus.NO_CONTENT)
_KEPT: Final = ("FileAlreadyExists", "FileImmutable")  # by the bucket's own rules, which we do not ask for
_PREFIX: Final = "users/"  # of every key of ours, and of all that we may list


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

    async def delete_many(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys under which there is no object now: see `ObjectStore.delete_many`."""
        if not keys:
            return set()
        body = deletion(keys)
        headers = {
            "Content-Type": "application/xml",
            "Content-MD5": b64encode(md5(body, usedforsecurity=False).digest()).decode(),
        }
        async with self._answer("POST", "", headers, body, {"delete": "", "encoding-type": "url"}) as response:
            return deleted(await response.read()) & set(keys)

    async def listed(self, after: str, prefix: str = _PREFIX) -> list[ListedObject]:
        """The next thousand objects behind that key: see `ObjectStore.listed`; only those with the prefix."""
        objects: list[ListedObject] = []
        while len(objects) < BATCH:  # a page is cut short by `max-keys` alone, as far as is documented
            page, is_last = await self._page(prefix, objects[-1].key if objects else after, BATCH - len(objects))
            objects += page
            if is_last or not page:
                break
        return objects

    async def _page(self, prefix: str, after: str, limit: int) -> tuple[list[ListedObject], bool]:
        params = {
            "list-type": "2",
            "prefix": prefix,
            "start-after": after,
            "max-keys": str(limit),
            "encoding-type": "url",
        }
        async with self._answer("GET", "", {}, params=params) as response:
            return listed(await response.read())

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
        return StoredObject(int(headers["Content-Length"]), headers.get(_CRC, UNKNOWN_CRC64), modified_at)

    async def read(self, url: str) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers with which a URL answers anybody who has it; redirects are followed.

        Raises:
            DependencyError: it does not answer.
        """
        try:
            async with self._session.get(URL(url, encoded=True)) as response:
                return response.status, await response.read(), response.headers
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise no_answer(error) from error

    async def close(self) -> None:
        """The session's connections are closed."""
        await self._session.close()

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        key: str,
        headers: dict[str, str],
        body: bytes | AsyncIterator[bytes] | None = None,
        params: dict[str, str] | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        url = self._url_of(method, key, headers, params)
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,  # the body can be sent but once, and the signature is for this host
            ) as response:
                if response.status not in _DONE:
                    raise await refusal(response)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise no_answer(error) from error

    def _url_of(self, method: str, key: str, headers: dict[str, str], params: dict[str, str] | None) -> str:
        signed: str
        if key:
            signed = self._signed.sign_url(method, key, _SIGNATURE_LIVES_S, headers=headers, slash_safe=True)
            return signed
        # The bucket itself, of which oss2 signs no URL by a public name.
        address = self._signed._make_url(self.bucket, "")  # noqa: SLF001 as said
        region, product = self._signed.region, self._signed.product
        request = oss2.http.Request(method, address, headers=headers, params=params, region=region, product=product)
        signed = self._signed.auth._sign_url(request, self.bucket, "", _SIGNATURE_LIVES_S)  # noqa: SLF001 as said
        return signed


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
    return image.file.read(image.size_bytes) if image.size_bytes <= _SLICE_BYTES else _slices(image)


async def _slices(image: Image) -> AsyncIterator[bytes]:
    # Read here and now: what was just written or summed is in the page cache. And no more of it than that: a file may
    # have grown meanwhile.
    left = image.size_bytes
    while part := image.file.read(min(left, _SLICE_BYTES)):
        left -= len(part)
        yield part


def _compare(sent: int, stored: str | None) -> None:
    if stored is None:
        detail = "OSS answered without x-oss-hash-crc64ecma: something between us and OSS strips it"
        raise DependencyError("storage", Reason.STORAGE_UNAVAILABLE, detail)
    if stored != str(sent):
        detail = f"OSS stored bytes with the checksum {stored}, sent were {sent}"
        raise TransientError(Reason.STORAGE_UNAVAILABLE, detail)
