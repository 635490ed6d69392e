"""Bearer tokens: whose they are, and those that we issue."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import TypeAdapter, ValidationError

from producer.api.errors import ApiError, unauthorized
from producer.settings import TokenSettings
from schemas.environment import SettingsError
from schemas.events import UserId

KeyOf: TypeAlias = Callable[[str], Any]

_USER_ID: Final[TypeAdapter[str]] = TypeAdapter(UserId)
_SYMMETRIC: Final = ("HS256", "HS384", "HS512")
# Kept apart from the above: a public key taken for a shared secret would let anybody sign.
_ASYMMETRIC: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LEEWAY_S: Final = 10  # what clocks of two machines may well differ by
_JWKS_TIMEOUT_S: Final = 5


class Tokens:
    """Verifies tokens, and issues our own where nobody else does.

    Args:
        settings: Whose tokens are trusted, and what they must say.
        secret: Signs and verifies, where no public key or JWKS is set.

    Raises:
        SettingsError: The public key is none.
    """

    def __init__(self, settings: TokenSettings, secret: str) -> None:
        self._settings = settings
        self._secret = secret
        self._key_of, self._algorithms = _trusted(settings, secret)

    def issue(self, user_id: str, lifetime_s: int) -> str:
        """A token of the user's that lives so long."""
        now = datetime.now(UTC)
        claims: dict[str, Any] = {
            self._settings.jwt_user_claim: user_id,
            "iat": now,
            "exp": now + timedelta(seconds=lifetime_s),
        }
        if self._settings.jwt_audience:
            claims["aud"] = self._settings.jwt_audience
        if self._settings.jwt_issuer:
            claims["iss"] = self._settings.jwt_issuer
        return jwt.encode(claims, self._secret, _SYMMETRIC[0])

    async def user_of(self, token: str) -> str:
        """The userId of a valid token.

        Raises:
            ApiError: 401 if it is not valid, 503 if the keys cannot be had.
        """
        try:
            # In a thread, since a key may have to be fetched.
            claims = await asyncio.to_thread(self._claims, token)
        except jwt.ExpiredSignatureError as error:
            raise unauthorized("the token has expired: log in again") from error
        except jwt.PyJWKClientConnectionError as error:
            detail = "the keys of JWT_JWKS_URL cannot be fetched"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "keys_unavailable", detail) from error
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError, jwt.MissingRequiredClaimError) as error:
            raise unauthorized("the token is for somebody else: its issuer or audience is not ours") from error
        except jwt.PyJWTError as error:
            raise unauthorized("the token is not valid: log in again") from error
        try:
            return _USER_ID.validate_python(claims.get(self._settings.jwt_user_claim))
        except ValidationError as error:
            detail = f"the token's claim {self._settings.jwt_user_claim} is no valid userId"
            raise unauthorized(detail) from error

    def _claims(self, token: str) -> dict[str, Any]:
        return jwt.decode(
            token,
            self._key_of(token),
            algorithms=self._algorithms,
            audience=self._settings.jwt_audience,
            issuer=self._settings.jwt_issuer,
            leeway=_LEEWAY_S,
            # Many backends put a number into `sub`; ours is not checked when nothing was asked for.
            options={"verify_sub": False, "verify_aud": self._settings.jwt_audience is not None},
        )


def _trusted(settings: TokenSettings, secret: str) -> tuple[KeyOf, tuple[str, ...]]:
    if settings.jwt_jwks_url:
        return jwt.PyJWKClient(settings.jwt_jwks_url, timeout=_JWKS_TIMEOUT_S).get_signing_key_from_jwt, _ASYMMETRIC
    if not settings.jwt_public_key:
        return lambda _token: secret, _SYMMETRIC
    try:
        key = load_pem_public_key(settings.jwt_public_key.replace("\\n", "\n").encode())
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(["JWT_PUBLIC_KEY is no public key in PEM (see .env.example)"]) from None
    return lambda _token: key, _ASYMMETRIC
