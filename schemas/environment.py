"""The environment variables that both ends share, and how a wrong one is told: one sentence each."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_SEE: Final = "(see .env.example)"
_HIGHEST_PORT: Final = 65_535
_SHORT: Final = 3  # to blot out every "a" would make no secret of anything

PART_PREFIX: Final = ".image-uploads-"
"""What the names of our unfinished files in TEMP_DIR begin with, so that the cleanup knows them after a crash."""

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=0, le=_HIGHEST_PORT)]


class SettingsError(Exception):
    """Settings are missing or wrong; `sentences` has one for each, and none holds a secret."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def url_with(*schemes: str, host_required: bool = True) -> AfterValidator:
    """Refuses a secret URL of any other scheme, or without a host, and never repeats what it was given."""
    start = rf"({'|'.join(schemes)})://" + (r"[^/\s]" if host_required else "")
    words = " or ".join(f"{scheme}://" for scheme in schemes) + (" and a host" if host_required else "")

    def check(url: SecretStr) -> SecretStr:
        if not _has_valid_port(url.get_secret_value()):
            raise ValueError("has no valid port: percent-encode what is special in its user and password")
        if not re.match(start, url.get_secret_value()):
            raise ValueError(f"must start with {words}")
        return url

    return AfterValidator(check)


def _has_valid_port(url: str) -> bool:
    # Looked at here, since a parser's words would repeat a part of the URL, maybe of the password.
    hosts = url.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2]
    matches = [re.fullmatch(r"(?:\[[^]]*\]|[^:\[\]]*)(?::(\d{1,5}))?", host) for host in hosts.split(",")]
    return all(match and int(match[1] or 0) <= _HIGHEST_PORT for match in matches)


class Environment(BaseSettings):
    """Settings that come from the environment, then from `.env` in the working directory, then from defaults."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,  # `OSS_BUCKET=` in a copied .env.example means: not set
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    def secrets(self) -> list[str]:
        """Every secret among the values, and the password of each secret URL: what must never be shown."""
        values = [value.get_secret_value() for _, value in self if isinstance(value, SecretStr)]
        passwords = [urlsplit(value).password or "" for value in values if "://" in value]
        return [secret for secret in (*values, *passwords, *map(unquote, passwords)) if len(secret) > _SHORT]


class LogSettings(Environment):
    """How the program speaks."""

    log_format: Literal["json", "console"] | None = None
    """`json` or `console`. Default: console on a terminal, JSON off it, where a collector reads."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is written. Default: one line per settled event."""


class AmqpSettings(Environment):
    """Where RabbitMQ is."""

    amqp_url: Annotated[SecretStr, url_with("amqp", "amqps")] = SecretStr("amqp://guest:guest@localhost:5672/")
    """RabbitMQ, `amqp://` or `amqps://`. The default is what a fresh RabbitMQ listens on."""


class DatabaseSettings(LogSettings):
    """Where PostgreSQL is."""

    database_url: Annotated[SecretStr, url_with("postgresql", "postgres", host_required=False)] = SecretStr(
        "postgresql://postgres@localhost:5432/image_uploads"
    )
    """PostgreSQL, `postgresql://`. The default is a fresh server's superuser on this machine."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path: file: URLs name their files from the root")
    return path


class TempDirSettings(Environment):
    """Where generators put the files that `file:` URLs name."""

    temp_dir: Annotated[Path, AfterValidator(_absolute)] = Path("/tmp/dream-factory")  # noqa: S108 users know it
    """A directory on one file system that all generators and workers share. The default is the old backend's."""


Settings = TypeVar("Settings", bound=Environment)


def load(make: Callable[[], Settings]) -> Settings:
    """The settings that `make` reads.

    Raises:
        SettingsError: with one sentence for each that is missing or wrong.
    """
    try:
        return make()
    except ValidationError as error:
        # The cause carries the input, and the input may be a secret.
        raise SettingsError(_sentences(error)) from None


def _sentences(error: ValidationError) -> list[str]:
    details = error.errors(include_input=False, include_url=False)
    names = [str(detail["loc"][0]).upper() if detail["loc"] else "" for detail in details]
    missing = [name for name, detail in zip(names, details, strict=True) if detail["type"] == "missing"]
    wrong = [
        f"{name} {_predicate(detail['msg'])} {_SEE}".lstrip()
        for name, detail in zip(names, details, strict=True)
        if detail["type"] != "missing"
    ]
    return [f"{_subject(missing)} is incomplete: set {', '.join(missing)} {_SEE}"] * bool(missing) + wrong


def _subject(missing: list[str]) -> str:
    return "OSS configuration" if all(name.startswith("OSS_") for name in missing) else "the configuration"


def _predicate(message: str) -> str:
    # What we say ourselves is a sentence already; pydantic's own words begin with a subject of theirs.
    if message.startswith("Value error, "):
        return message.removeprefix("Value error, ")
    predicate = message.removeprefix("Input ")
    return predicate[0].lower() + predicate[1:]
