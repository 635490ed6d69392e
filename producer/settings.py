"""What the commands of the producer read from the environment: each command its own class, nothing it does not use.

Every field says its unit, its range, and why its default is what it is.
"""

import secrets
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from schemas.environment import AmqpSettings, DatabaseSettings, Environment, Port, TempDirSettings

_SHORTEST_SECRET: Final = 16


class PublishSettings(AmqpSettings, TempDirSettings):
    """What `publish` reads."""


class UsersSettings(Environment):
    """Who may log in; what `users` reads."""

    api_users_file: Path = Path("users.json")
    """A file of the ingress' own: hashed passwords, and the secret that signs tokens while JWT_SECRET is not set.
    Default: in the working directory, beside .env."""


def _long_enough(secret: SecretStr) -> SecretStr:
    # Whoever has one token can try secrets at home, and then be anybody.
    if len(secret.get_secret_value()) < _SHORTEST_SECRET:
        raise ValueError(f"must have at least {_SHORTEST_SECRET} characters")
    return secret


def _free_claim(name: str) -> str:
    if name in ("exp", "iat", "nbf", "aud", "iss", "jti"):
        raise ValueError("must not be a claim that means something else")
    return name


class TokenSettings(Environment):
    """Whose bearer tokens are trusted: one of a secret, a public key and a JWKS, or none, for tokens of our own."""

    jwt_secret: Annotated[SecretStr, AfterValidator(_long_enough)] | None = None
    """Verifies, and signs what we issue, as HS256; at least 16 characters, better 32. A token without `exp` is good for
    ever. Default: one that was made up, and is kept in API_USERS_FILE."""
    jwt_public_key: str | None = None
    r"""A public key in PEM of the backend that issues tokens; line breaks may be written as \n. Default: none."""
    jwt_jwks_url: Annotated[str, Field(pattern=r"^https?://[^/\s]")] | None = None
    """Where that backend publishes its keys. Default: none."""
    jwt_user_claim: Annotated[str, Field(min_length=1), AfterValidator(_free_claim)] = "sub"
    """The claim that is the userId, none of those that mean something else. Default: the registered one."""
    jwt_audience: str | None = None
    """What `aud` must be, or hold. Default: not checked."""
    jwt_issuer: str | None = None
    """What `iss` must be. Default: not checked."""

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if sum(value is not None for value in (self.jwt_secret, self.jwt_public_key, self.jwt_jwks_url)) > 1:
            raise ValueError("set only one of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS_URL")
        return self

    @property
    def issues_tokens(self) -> bool:
        """Whether we log users in ourselves; with somebody else's keys we only verify."""
        return self.jwt_public_key is None and self.jwt_jwks_url is None


class ApiSettings(AmqpSettings, DatabaseSettings, TokenSettings, UsersSettings):
    """What `api` reads."""

    api_host: str = "127.0.0.1"
    """Address to listen on. Default: this machine only; what is public stands behind a proxy with TLS."""
    api_port: Port = 3001
    """Its port, 0 for any free one. Default: the older backend's."""
    api_wait_s: Annotated[float, Field(ge=0, le=600)] = 25
    """Seconds that a request waits for its image, 0 to 600; then it is answered 202. Default: below the 30 s after
    which common proxies give up."""
    api_token_lifetime_s: Annotated[int, Field(ge=60, le=365 * 86_400)] = 86_400
    """Seconds that a token lives that we issue, 60 to 31536000. Default: a day's work."""


def made_up_secret() -> str:
    """A secret for signing tokens: 256 random bits, as text."""
    return secrets.token_urlsafe(32)
