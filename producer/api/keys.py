"""What verifies tokens: one key that was given, or those that another backend publishes."""

import asyncio
from http import HTTPStatus
from typing import Any, Final, Protocol

import aiohttp
import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from producer.api.errors import ApiError
from schemas.environment import SettingsError

SYMMETRIC: Final = ("HS256", "HS384", "HS512")
# Kept apart from the above: a public key taken for a shared secret would let anybody sign.
ASYMMETRIC: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

_FETCH_TIMEOUT_S: Final = 5.0
_FRESH_S: Final = 300.0  # how long a key that was withdrawn may still do
_PAUSE_S: Final = 30.0  # between two fetches, whatever tokens name

_log = structlog.get_logger()


class Keys(Protocol):
    """Where the key of a token comes from."""

    algorithms: tuple[str, ...]

    async def of(self, token: str) -> Any:  # noqa: ANN401 each algorithm has its own kind of key
        """The key that verifies the token, if any does.

        Raises:
            PyJWTError: There is none.
            ApiError: 503, the keys cannot be had.
        """


class GivenKey:
    """One key for all tokens."""

    def __init__(self, key: Any, algorithms: tuple[str, ...]) -> None:  # noqa: ANN401 as above
        self.algorithms = algorithms
        self._key = key

    @classmethod
    def public(cls, pem: str) -> "GivenKey":
        r"""A public key in PEM, whose line breaks may be written as \n.

        Raises:
            SettingsError: It is none.
        """
        try:
            return cls(load_pem_public_key(pem.replace("\\n", "\n").encode()), ASYMMETRIC)
        except (ValueError, UnsupportedAlgorithm):
            raise SettingsError(["JWT_PUBLIC_KEY is no public key in PEM (see .env.example)"]) from None

    async def of(self, token: str) -> Any:  # noqa: ANN401 as above
        """See `Keys.of`."""
        del token
        return self._key


class PublishedKeys:
    """The keys of a JWKS. They are fetched by one request at a time, and the last good ones stay.

    PyJWT's own client blocks a thread for each caller while the server is slow.
    """

    algorithms: tuple[str, ...] = ASYMMETRIC

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._fetched_at = self._tried_at = float("-inf")

    async def of(self, token: str) -> Any:  # noqa: ANN401 as above
        """See `Keys.of`."""
        key_id = jwt.get_unverified_header(token).get("kid")
        is_old = asyncio.get_running_loop().time() - self._fetched_at > _FRESH_S
        if is_old or key_id not in self._keys:
            await self._fetch_once()
        if not self._keys:
            detail = "the keys of JWT_JWKS_URL cannot be fetched"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "keys_unavailable", detail, headers={"Retry-After": "30"})
        if key_id not in self._keys:
            raise jwt.InvalidKeyError("no key of this id is published")
        return self._keys[key_id]

    async def _fetch_once(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._fetching is None and now - self._tried_at > (_PAUSE_S if self._keys else 0):
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch())
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            self._keys = await self._published()
            self._fetched_at = asyncio.get_running_loop().time()
        except (aiohttp.ClientError, jwt.PyJWTError, OSError, TimeoutError, ValueError) as error:
            _log.warning("the keys of JWT_JWKS_URL cannot be fetched", error=f"{type(error).__name__}: {error}")
        finally:
            self._fetching = None

    async def _published(self) -> dict[str | None, jwt.PyJWK]:
        timeout = aiohttp.ClientTimeout(_FETCH_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(self._url, raise_for_status=True, allow_redirects=False) as response,
        ):
            published = await response.json(content_type=None)
        if not isinstance(published, dict):
            raise ValueError("it is no JWKS")  # noqa: TRY004 whatever is published is a value
        return {key.key_id: key for key in jwt.PyJWKSet.from_dict(published).keys}
