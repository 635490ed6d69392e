"""Images from web servers."""

from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from consumer.adapters.address_guard import AddressGuard, ForbiddenAddressError, GuardedResolver
from consumer.adapters.host_turns import HostTurns
from consumer.core.errors import PermanentError, TransientError, UploadError
from consumer.core.redact import redact, redact_url
from schemas.reasons import Reason

_CONNECT_TIMEOUT_S: Final = 10
_SILENCE_TIMEOUT_S: Final = 20
_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_GONE: Final = (404, 410)
_REFUSED: Final = (401, 403)  # some stores answer 403 for what is not there yet
_TRY_LATER: Final = (408, 425, 429)
_CLIENT_ERRORS: Final = range(400, 500)
_RUNGS_OF_GONE: Final = 2  # generators announce before their CDN serves; after that, it will not come
_LONGEST_WAIT_S: Final = 24 * 3600  # a Retry-After beyond that is a mistake, and the ladder knows better
_CHUNK_BYTES: Final = 256 * 1024


class HttpSource:
    """One keep-alive session that fetches from allowed addresses only, and follows redirects under the same policy."""

    def __init__(self, guard: AddressGuard, turns: HostTurns, *, max_bytes: int) -> None:
        self._guard = guard
        self._turns = turns
        self._max_bytes = max_bytes
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # the prefetch is the limit
                resolver=GuardedResolver(guard),
                socket_factory=guard.make_socket,
            ),
            timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_TIMEOUT_S, sock_read=_SILENCE_TIMEOUT_S),
            # What is stored must be what was sent; a compressed answer is refused before it is read.
            headers={"Accept": "image/*, */*;q=0.1", "Accept-Encoding": "identity", "User-Agent": "image-uploads"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def chunks(self, url: str) -> AsyncGenerator[bytes]:
        """The image's bytes, as they come.

        Raises:
            UploadError: with the blame.
        """
        try:
            async with self._turns.of(urlsplit(url).netloc.rpartition("@")[2]), await self._get(url) as response:
                self._check(response)
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    yield chunk
        except UploadError:
            raise
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _blame(error, url) from error

    async def close(self) -> None:
        """The session's connections are closed."""
        await self._session.close()

    async def _get(self, url: str) -> aiohttp.ClientResponse:
        for _ in range(_MOST_REDIRECTS + 1):
            target = URL(url, encoded=True)  # a signed URL breaks when it is quoted anew
            if target.scheme not in ("http", "https") or not target.host:
                raise PermanentError(Reason.SOURCE_FORBIDDEN, f"{redact_url(url)} is no http(s) URL with a host")
            self._guard.check_host(target.host)
            response = await self._session.get(target, allow_redirects=False)
            if response.status not in _REDIRECTS or "Location" not in response.headers:
                return response
            response.release()
            url = _redirected(url, response.headers["Location"])
        raise TransientError(Reason.SOURCE_UNAVAILABLE, f"more than {_MOST_REDIRECTS} redirects, to {redact_url(url)}")

    def _check(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        answer = f"the source answered {status} {response.reason or ''}".strip()
        wait_s = _retry_after_s(response.headers)
        if status in _GONE:
            raise TransientError(Reason.SOURCE_GONE, answer, rungs=_RUNGS_OF_GONE, not_before_s=wait_s)
        if status in _REFUSED:
            raise TransientError(Reason.SOURCE_FORBIDDEN, answer, rungs=_RUNGS_OF_GONE, not_before_s=wait_s)
        if status in _CLIENT_ERRORS and status not in _TRY_LATER:
            raise PermanentError(Reason.SOURCE_FORBIDDEN, answer)
        if status != HTTPStatus.OK:
            raise TransientError(Reason.SOURCE_UNAVAILABLE, answer, not_before_s=wait_s)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise PermanentError(Reason.NOT_AN_IMAGE, "the source sent a compressed body that nobody asked for")
        if (response.content_length or 0) > self._max_bytes:
            detail = f"{response.content_length} bytes are more than {self._max_bytes} (MAX_IMAGE_BYTES)"
            raise PermanentError(Reason.TOO_LARGE, detail)


def _redirected(url: str, location: str) -> str:
    try:
        target = URL(urljoin(url, location), encoded=True)
        (target.host or "").encode("idna")  # as it must be, to be looked up
        return str(target)
    except ValueError as error:
        raise TransientError(Reason.SOURCE_UNAVAILABLE, "the source redirects to what is no URL") from error


def _retry_after_s(headers: Mapping[str, str]) -> float:
    value = headers.get("Retry-After", "0").strip()
    try:
        seconds = int(value) if value.isdecimal() else _seconds_until(parsedate_to_datetime(value))
    except (ValueError, OverflowError):  # nonsense, or no such day
        return 0
    return seconds if 0 <= seconds <= _LONGEST_WAIT_S else 0


def _seconds_until(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()


def _blame(error: Exception, url: str) -> UploadError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ForbiddenAddressError):
            return PermanentError(Reason.SOURCE_FORBIDDEN, str(cause))
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, ValueError) and not isinstance(error, OSError):  # a wrong certificate is both
        return PermanentError(Reason.INVALID_EVENT, f"imageUrl is no valid URL: {redact_url(url)}")
    if isinstance(error, TimeoutError):
        return TransientError(Reason.SOURCE_UNAVAILABLE, f"the source at {redact_url(url)} did not answer in time")
    return TransientError(Reason.SOURCE_UNAVAILABLE, redact(f"{type(error).__name__}: {error}"))
