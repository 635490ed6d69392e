"""What the commands of the consumer read from the environment: each command its own class, nothing it does not use.

Every field says its unit, its range, and why its default is what it is.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Final, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from schemas.environment import (
    AmqpSettings,
    DatabaseSettings,
    Environment,
    LogSettings,
    Port,
    Seconds,
    TempDirSettings,
)

Network = IPv4Network | IPv6Network
RETRY_DELAYS_S: Final = (5, 30, 120, 600, 1800, 7200)

_LONGEST_DELAY_S: Final = 7 * 86_400


def _parts(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _network(value: object) -> object:
    return ip_network(value) if isinstance(value, str) else value


def _ladder(delays: tuple[int, ...]) -> tuple[int, ...]:
    if not delays or list(delays) != sorted(set(delays)):
        raise ValueError("must be whole seconds that grow from rung to rung, such as 5,30,120")
    return delays


def _like(pattern: str, words: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"must be {words}")
        return value

    return AfterValidator(check)


RECORDING_S: Final = 60  # what looking up and recording may take beside a slow database


class DeclareSettings(AmqpSettings, LogSettings):
    """What `declare` reads."""

    retry_delays_s: Annotated[
        tuple[Annotated[int, Field(ge=1, le=_LONGEST_DELAY_S)], ...],
        NoDecode,
        BeforeValidator(_parts),
        AfterValidator(_ladder),
    ] = RETRY_DELAYS_S
    """The ladder: comma-separated seconds, growing, 1 to 604800. The default spans the outage of a night's
    first three hours: quick enough for a hiccup, patient enough for a deployment gone wrong."""


class OssSettings(Environment):
    """Which bucket, how to reach it, and how its objects are addressed."""

    oss_bucket: Annotated[str, _like(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", "3 to 63 of a-z, 0-9 and hyphens")]
    """The bucket's name. Required."""
    oss_region: Annotated[str, _like(r"[a-z0-9-]+", "like cn-hangzhou")]
    """`cn-hangzhou`, or `oss-cn-hangzhou`, which means the same. Required."""
    oss_access_key: SecretStr = Field(
        min_length=1, validation_alias=AliasChoices("OSS_ACCESS_KEY", "OSS_ACCESS_KEY_ID")
    )
    """The access key's id. Required."""
    oss_secret: SecretStr = Field(min_length=1, validation_alias=AliasChoices("OSS_SECRET", "OSS_ACCESS_KEY_SECRET"))
    """The access key's secret. Required."""
    oss_session_token: SecretStr | None = None
    """The token of temporary (STS) credentials. Default: none, for a RAM user's own key."""
    oss_endpoint: (
        Annotated[str, _like(r"https?://[\w.-]+(:\d{1,5})?/?", "like https://host, without a login or a path")] | None
    ) = None
    """Where requests are sent. Default: the region's public endpoint; inside Alibaba Cloud use its -internal one."""
    oss_cname: bool = False
    """Whether the endpoint is a bucket's own domain. Default: false."""
    oss_base_url: (
        Annotated[str, _like(r"https?://[\w.-]+(:\d{1,5})?(/[^\s?#]*)?", "like https://host/path, without a login")]
        | None
    ) = None
    """Public base of object URLs, a CDN or custom domain. Default: the bucket's own domain, which makes
    browsers download images instead of showing them."""
    oss_url_expires_s: int = Field(default=0, ge=0, le=7 * 86_400)
    """Seconds, 0 to 604800. 0, the default: plain URLs. Above: presigned ones, for private buckets."""

    oss_timeout_s: Seconds = 60
    """Seconds that one request to OSS may take, above 0. Default: a 25 MiB image over 4 Mbit/s."""

    @field_validator("oss_region")
    @classmethod
    def _without_product(cls, region: str) -> str:
        return region.removeprefix("oss-")

    @property
    def endpoint(self) -> str:
        """Where requests are sent."""
        return (self.oss_endpoint or f"https://oss-{self.oss_region}.aliyuncs.com").rstrip("/")

    @property
    def base_url(self) -> str:
        """Public base of object URLs, without a slash at its end."""
        return (self.oss_base_url or f"https://{self.oss_bucket}.oss-{self.oss_region}.aliyuncs.com").rstrip("/")


class SourceSettings(TempDirSettings):
    """Where images may be fetched from, and how large they may be."""

    source_allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)] = ()
    """Comma-separated host names; a leading dot allows subdomains. Default, empty: any public host."""
    source_allowed_networks: Annotated[
        tuple[Annotated[Network, BeforeValidator(_network)], ...], NoDecode, BeforeValidator(_parts)
    ] = ()
    """Comma-separated private or loopback ranges, such as 10.0.0.0/8, that may be fetched from. Default: none,
    because whoever publishes an event would otherwise reach what only this machine can reach."""
    source_timeout_s: Seconds = 60
    """Seconds that one fetch may take, with its redirects, above 0. Default: a 25 MiB image over 4 Mbit/s."""
    max_image_bytes: int = Field(default=26_214_400, ge=1, le=5 * 1024**3)
    """Bytes, 1 to 5 GiB (what OSS takes in one PUT). Default: 25 MiB, several times a 4K PNG."""
    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Width times height. Default: 50 million, 8K with room."""


class OrphanSettings(Environment):
    """When an object that no row names is an orphan."""

    orphan_grace_s: int = Field(default=86_400, ge=0, le=365 * 86_400)
    """Seconds for which an object may be without a row before it counts as an orphan, 0 to 31536000. Default: a day,
    in which its event has long climbed the ladder."""


class WorkerSettings(DeclareSettings, DatabaseSettings, OssSettings, SourceSettings, OrphanSettings):
    """What `worker` reads."""

    prefetch: int = Field(default=64, ge=1, le=2000)
    """Deliveries in work at once, per process, 1 to 2000. Default: enough to hide 100 ms of waiting at 600/s."""
    handler_timeout_s: float = Field(default=300, gt=0, le=1500)
    """Seconds for one try of one event, at most 1500, and at least SOURCE_TIMEOUT_S + OSS_TIMEOUT_S + 60. Default: far
    above a slow source, and far below the 30 minutes after which a broker takes the delivery back."""

    @model_validator(mode="after")
    def _deadlines_fit(self) -> Self:
        # Or the handler's deadline would blame the event for a store or database that is merely slow.
        least = self.source_timeout_s + self.oss_timeout_s + RECORDING_S
        if self.handler_timeout_s < least:
            raise ValueError(f"HANDLER_TIMEOUT_S must be at least SOURCE_TIMEOUT_S + OSS_TIMEOUT_S + {RECORDING_S}")
        return self

    drain_timeout_s: Seconds = 25
    """Seconds that a stopping worker gives to what it has begun; then it ends, whatever hangs. Default: below the 30
    after which Kubernetes kills."""
    retention_days: int | None = Field(default=None, ge=1, le=36_500)
    """Outputs expire after this many days, 1 to 36500. Default, unset: never."""
    cleanup_interval_s: int = Field(default=3600, ge=0, le=30 * 86_400)
    """Seconds between two cleanups, 0 to 2592000; 0: no schedule, only requests. Default: what has expired is gone an
    hour later at most, and looking through a large bucket costs little beside an hour of uploads."""
    temp_max_age_s: int = Field(default=86_400, ge=1, le=365 * 86_400)
    """Seconds after which a file in TEMP_DIR that no event has asked for is abandoned, 1 to 31536000. Default: a day
    for whoever publishes its event late."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics, /healthz and /readyz. Default: this machine only."""
    metrics_port: Port = 9464
    """Its port, 0 for any free one. Default: the one registered for OpenTelemetry's Prometheus exporter."""


class DeadLetterSettings(AmqpSettings, LogSettings):
    """What `dead list`, `dead show` and `dead replay` read."""


class DiscardSettings(DeadLetterSettings, TempDirSettings):
    """What `dead discard` reads."""


class RepublishSettings(AmqpSettings, DatabaseSettings):
    """What `republish` reads; to presign links it reads `OssSettings` as well."""

    oss_url_expires_s: int = Field(default=0, ge=0, le=7 * 86_400)
    """As the workers have it. Above 0, links are presigned anew."""


class TraceSettings(AmqpSettings, DatabaseSettings, OssSettings, TempDirSettings):
    """What `trace` reads."""


class ExpireSettings(DatabaseSettings):
    """What `expire` reads."""


class ReconcileSettings(DatabaseSettings, OssSettings, OrphanSettings):
    """What `reconcile` reads."""
