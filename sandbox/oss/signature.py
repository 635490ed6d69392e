"""Signature version 4, verified.

Source: OSS documentation, "Include signatures in the Authorization header (V4)" and "Include a V4
signature in a URL"; in doubt, what the stock SDKs send (oss2 `AuthV4`, alibabacloud-oss-v2 `SignerV4`).
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote

from sandbox.oss.errors import OssError

ALGORITHM: Final = "OSS4-HMAC-SHA256"
MAX_SKEW: Final = timedelta(minutes=15)
MAX_EXPIRES_S: Final = 7 * 24 * 3600
_DATE_FORMAT: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The one account that the server knows."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """What of a request is signed: decoded once, header names in lower case."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a request says about its own signature."""

    access_key_id: str
    scope: str
    date: str
    signed_at: datetime
    additional: tuple[str, ...]
    signature: str
    security_token: str
    expires_s: int | None  # None: signed by header, which lives as long as the skew allows


def authenticate(message: Message, credentials: Credentials, region: str, now: datetime) -> bool:
    """True if the request is signed by the account, False if it is not signed at all.

    Raises:
        OssError: the signature is of another version, too old, out of scope or wrong.
    """
    claim = _by_url(message, region) if _is_presigned(message) else _by_header(message, region)
    if claim is None:
        return False
    _check_time(claim, now)
    if claim.access_key_id != credentials.access_key_id:
        raise OssError("InvalidAccessKeyId", fields={"OSSAccessKeyId": claim.access_key_id})
    if claim.security_token != credentials.security_token:
        # A temporary key without its token is an unknown key; a token that is not the key's is invalid.
        raise OssError("InvalidSecurityToken" if claim.security_token else "InvalidAccessKeyId")
    _check_signature(message, claim, credentials, region)
    return True


def _is_presigned(message: Message) -> bool:
    version = message.query.get("x-oss-signature-version")
    if version not in (None, ALGORITHM):
        raise OssError("InvalidArgument", "x-oss-signature-version is not valid in query.", ec="0002-00000066")
    if "OSSAccessKeyId" in message.query:
        raise _version_1()
    return version is not None


def _version_1() -> OssError:
    # The page of this EC gives the status and the reason, not the code; the code is our reading.
    return OssError("AccessDenied", "The V1 signature is not supported, use V4.", ec="0002-00000080")


def _by_header(message: Message, region: str) -> _Claim | None:
    authorization = message.headers.get("authorization")
    if authorization is None:
        return None
    if authorization.startswith("OSS "):
        raise _version_1()
    algorithm, _, rest = authorization.partition(" ")
    parts = dict(re.findall(r"(\w+)=([^,\s]+)", rest))
    if algorithm != ALGORITHM or "Credential" not in parts or "Signature" not in parts:
        raise OssError("InvalidArgument", "Authorization header is invalid.")
    date = message.headers.get("x-oss-date") or message.headers.get("date", "")
    return _claim(
        parts["Credential"],
        date,
        region,
        additional=_names(parts.get("AdditionalHeaders", "")),
        signature=parts["Signature"],
        security_token=message.headers.get("x-oss-security-token", ""),
        expires_s=None,
    )


def _by_url(message: Message, region: str) -> _Claim:
    query = message.query
    expires = query.get("x-oss-expires", "")
    if not re.fullmatch(r"\d{1,9}", expires) or not 1 <= int(expires) <= MAX_EXPIRES_S:
        raise OssError("InvalidArgument", "x-oss-expires is not valid in query.", ec="0002-00000232")
    return _claim(
        query.get("x-oss-credential", ""),
        query.get("x-oss-date", ""),
        region,
        additional=_names(query.get("x-oss-additional-headers", "")),
        signature=query.get("x-oss-signature", ""),
        security_token=query.get("x-oss-security-token", ""),
        expires_s=int(expires),
    )


def _names(additional: str) -> tuple[str, ...]:
    return tuple(sorted({name.lower() for name in additional.split(";") if name}))


def _claim(
    credential: str,
    date: str,
    region: str,
    *,
    additional: tuple[str, ...],
    signature: str,
    security_token: str,
    expires_s: int | None,
) -> _Claim:
    access_key_id, _, scope = credential.partition("/")
    signed_at = _instant(date)
    match scope.split("/"):
        case [day, scoped_region, product, "aliyun_v4_request"]:
            if scoped_region != region:
                raise _invalid("signing region", "0002-00000226")
            if product != "oss":
                raise _invalid("signing product", "0002-00000227")
            if day != signed_at.strftime("%Y%m%d"):
                raise _invalid("signing date", "0002-00000212")
        case _:
            raise _invalid("Credential", "0002-00000213")
    return _Claim(access_key_id, scope, date, signed_at, additional, signature, security_token, expires_s)


def _invalid(what: str, ec: str) -> OssError:
    return OssError("InvalidArgument", f"Invalid {what} in Authorization header.", ec=ec)


def _instant(date: str) -> datetime:
    try:
        return datetime.strptime(date, _DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(date).replace(tzinfo=UTC)  # a Date header is always in GMT
    except ValueError:
        raise OssError("AccessDenied", "OSS authentication requires a valid Date.") from None


def _check_time(claim: _Claim, now: datetime) -> None:
    server_time = {"ServerTime": _iso(now)}
    if claim.expires_s is None:
        if abs(now - claim.signed_at) > MAX_SKEW:
            raise OssError("RequestTimeTooSkewed", fields={"RequestTime": _iso(claim.signed_at), **server_time})
        return
    expires_at = claim.signed_at + timedelta(seconds=claim.expires_s)
    if now > expires_at:
        raise OssError(
            "AccessDenied",
            "Request has expired.",
            ec="0002-00000069",
            fields={"Expires": _iso(expires_at), **server_time},
        )
    if claim.signed_at > now + MAX_SKEW:
        raise OssError("AccessDenied", "Request is not yet valid.", ec="0002-00000235", fields=server_time)


def _iso(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _check_signature(message: Message, claim: _Claim, credentials: Credentials, region: str) -> None:
    canonical = _canonical_request(message, claim.additional)
    digest = hashlib.sha256(canonical.encode(errors="surrogateescape")).hexdigest()
    to_sign = f"{ALGORITHM}\n{claim.date}\n{claim.scope}\n{digest}"
    day = claim.scope.partition("/")[0]
    signing_key = f"aliyun_v4{credentials.access_key_secret}".encode()
    for part in (day, region, "oss", "aliyun_v4_request"):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    expected = hmac.digest(signing_key, to_sign.encode(errors="surrogateescape"), "sha256").hex()
    if not hmac.compare_digest(expected.encode(), claim.signature.encode(errors="surrogateescape")):
        raise OssError(
            "SignatureDoesNotMatch",
            fields={
                "OSSAccessKeyId": claim.access_key_id,
                "SignatureProvided": claim.signature,
                "StringToSign": to_sign,
                "CanonicalRequest": canonical,
            },
        )


def _canonical_request(message: Message, additional: tuple[str, ...]) -> str:
    headers = sorted(
        (name, value)
        for name, value in message.headers.items()
        if name.startswith("x-oss-") or name in ("content-type", "content-md5") or name in additional
    )
    return "\n".join(
        (
            message.method,
            # /bucket/key whether the request was path style or virtual host style
            _encoded(f"/{message.bucket}/{message.key}", safe="/"),
            _canonical_query(message.query.items()),
            "".join(f"{name}:{value}\n" for name, value in headers),
            ";".join(additional),
            message.headers.get("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
        )
    )


def _canonical_query(query: Iterable[tuple[str, str]]) -> str:
    pairs = sorted((_encoded(name), _encoded(value)) for name, value in query if name != "x-oss-signature")
    return "&".join(f"{name}={value}" if value else name for name, value in pairs)


def _encoded(text: str, safe: str = "") -> str:
    return quote(text, safe=safe, errors="surrogateescape")
