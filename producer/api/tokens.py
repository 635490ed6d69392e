"""Bearer tokens: whose they are, and those that we issue."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
from pydantic import TypeAdapter, ValidationError

from producer.api.errors import unauthorized
from producer.api.keys import SYMMETRIC, GivenKey, Keys, PublishedKeys
from producer.settings import TokenSettings
from schemas.events import UserId

_USER_ID: Final[TypeAdapter[str]] = TypeAdapter(UserId)
_LEEWAY_S: Final = 10  # what clocks of two machines may well differ by


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
        self._keys = _keys(settings, secret)

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
        return jwt.encode(claims, self._secret, SYMMETRIC[0])

    async def user_of(self, token: str) -> str:
        """The userId of a valid token.

        Raises:
            ApiError: 401 if it is not valid, 503 if the keys cannot be had.
        """
        try:
            claims = self._claims(token, await self._keys.of(token))
        except jwt.ExpiredSignatureError as error:
            raise unauthorized("the token has expired: log in again") from error
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError, jwt.MissingRequiredClaimError) as error:
            raise unauthorized("the token is for somebody else: its issuer or audience is not ours") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:  # the latter two for what does not fit the key
            raise unauthorized("the token is not valid: log in again") from error
        try:
            return _USER_ID.validate_python(claims.get(self._settings.jwt_user_claim))
        except ValidationError as error:
            detail = f"the token's claim {self._settings.jwt_user_claim} is no valid userId"
            raise unauthorized(detail) from error

    def _claims(self, token: str, key: Any) -> dict[str, Any]:  # noqa: ANN401 each algorithm has its own kind of key
        return jwt.decode(
            token,
            key,
            algorithms=self._keys.algorithms,
            audience=self._settings.jwt_audience,
            issuer=self._settings.jwt_issuer,
            leeway=_LEEWAY_S,
            # Many backends put a number into `sub`; ours is not checked when nothing was asked for.
            options={"verify_sub": False, "verify_aud": self._settings.jwt_audience is not None},
        )


def _keys(settings: TokenSettings, secret: str) -> Keys:
    if settings.jwt_jwks_url:
        return PublishedKeys(settings.jwt_jwks_url)
    if settings.jwt_public_key:
        return GivenKey.public(settings.jwt_public_key)
    return GivenKey(secret, SYMMETRIC)
