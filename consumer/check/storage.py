"""OSS: an object can be put, read by whoever has its URL, listed and deleted; each refusal has a mend of its own."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from io import BytesIO
from secrets import token_hex
from shlex import quote
from typing import Final
from urllib.parse import urlsplit

from fastcrc import crc64

from consumer.adapters.oss import OssStore
from consumer.adapters.oss_refusal import StorageRefusedError
from consumer.check.finding import Finding, Subject
from consumer.check.shell import Shell
from consumer.core.errors import UploadError
from consumer.core.ports import Image
from consumer.settings import OssSettings
from schemas.reasons import Reason

STORAGE: Final = Subject("OSS")
_REQUEST_TIMEOUT_S: Final = 20
_ASKED_FOR: Final = {
    "InvalidAccessKeyId": ("OSS_ACCESS_KEY", "OSS_SECRET"),
    "SignatureDoesNotMatch": ("OSS_SECRET",),
    "InvalidSecurityToken": ("OSS_SESSION_TOKEN",),
    "SecurityTokenExpired": ("OSS_ACCESS_KEY", "OSS_SECRET", "OSS_SESSION_TOKEN"),
    "NoSuchBucket": ("OSS_BUCKET",),
}
"""What its owner must say anew. Source: OSS documentation, "HTTP 400 errors", "HTTP 403 errors", "HTTP 404 errors"."""
_HINTS: Final = {
    "NoSuchBucket": "make the bucket in the OSS console, or name another",
    "PublicEndpointForbidden": "give the bucket's custom domain, or on a server of that region the -internal endpoint",
    "UserDisable": "the account is suspended: see its bills",
}
_REGION_OF: Final = re.compile(r"oss-([a-z0-9-]+?)(?:-internal)?\.aliyuncs\.com")
_HOST: Final = re.compile(r"[\w.-]+(:\d{1,5})?", re.ASCII)


async def look(settings: OssSettings, shell: Shell) -> list[Finding]:
    """What there is to say of the bucket; nothing of ours is left in it."""
    store = OssStore(settings, timeout_s=min(settings.oss_timeout_s, _REQUEST_TIMEOUT_S))
    try:
        return [*await _try_object(store, settings, shell), *default_domain(settings, shell)]
    finally:
        await store.close()


async def _try_object(store: OssStore, settings: OssSettings, shell: Shell) -> list[Finding]:
    # A key of its own, and not the worker's probe: a CDN would remember what that had been.
    key = f"users/.image-uploads/check-{token_hex(8)}"
    body = key.encode()
    try:
        await store.put(
            key, Image(BytesIO(body), len(body), crc64.xz(body)), content_type="text/plain", event_id="check"
        )
    except UploadError as error:
        return [_refused(error, settings, shell)]
    found = [
        STORAGE.ok(f"the bucket {settings.oss_bucket} takes an object"),
        await _reading(store, key, settings, shell),
        await _listing(store, settings, shell),
    ]
    try:
        await store.delete(key)
    except UploadError as error:
        found.append(_refused(error, settings, shell))
    else:
        found.append(STORAGE.ok("and deletes it"))
    return found


def _refused(error: UploadError, settings: OssSettings, shell: Shell) -> Finding:
    if not isinstance(error, StorageRefusedError):
        place = "OSS_ENDPOINT" if settings.oss_endpoint else "OSS_REGION"
        return STORAGE.wrong(error.detail, shell.ask(place) if error.reason is Reason.STORAGE_UNAVAILABLE else None)
    hint = _HINTS.get(error.code)
    return STORAGE.wrong(f"{error.detail} ({hint})" if hint else error.detail, mend_refusal(error, settings, shell))


def mend_refusal(error: StorageRefusedError, settings: OssSettings, shell: Shell) -> str | None:
    """The command that mends what the service refuses, as far as its answer tells."""
    mend: str | None
    match error.code:
        case _ if error.endpoint:
            mend = _move_to(error.endpoint, settings, shell)
        case "InvalidArgument" if error.of_signature:
            mend = _name_region(settings, shell)
        case "AccessDenied":
            mend = _grant(settings)
        case "RequestTimeTooSkewed":
            mend = "sudo timedatectl set-ntp true"
        case "InvalidAccessKeyId" if _is_temporary(settings) and settings.oss_session_token is None:
            mend = shell.ask("OSS_SESSION_TOKEN")
        case "PublicEndpointForbidden":
            mend = f"{shell.ask('OSS_ENDPOINT')} && {shell.set(OSS_CNAME='true')}"
        case code if code in _ASKED_FOR:
            mend = shell.ask(*_ASKED_FOR[code])
        case _:
            mend = None
    return mend


def _name_region(settings: OssSettings, shell: Shell) -> str:
    region = _REGION_OF.search(settings.oss_endpoint or "")
    return shell.set(OSS_REGION=region[1]) if region else shell.ask("OSS_REGION")


def _is_temporary(settings: OssSettings) -> bool:
    return settings.oss_access_key.get_secret_value().startswith("STS.")


def _move_to(endpoint: str, settings: OssSettings, shell: Shell) -> str | None:
    """The settings lead to the endpoint that the service names, and so to the region that its name holds."""
    if not _HOST.fullmatch(endpoint):
        return None
    region = _REGION_OF.fullmatch(endpoint)
    values = {"OSS_REGION": region[1]} if region else {}
    if settings.oss_endpoint or not region:
        values["OSS_ENDPOINT"] = f"{urlsplit(settings.endpoint).scheme}://{endpoint}"
    return shell.set(**values)


def _grant(settings: OssSettings) -> str:
    """An administrator gives the key's RAM user what a worker needs, whose name is typed first."""
    actions = ["oss:PutObject", "oss:DeleteObject"] + ["oss:GetObject"] * bool(settings.oss_url_expires_s)
    objects = {"Effect": "Allow", "Action": actions, "Resource": [f"acs:oss:*:*:{settings.oss_bucket}/users/*"]}
    return _allow(f"image-uploads-{settings.oss_bucket}", objects, _listing_statement(settings))


def _grant_listing(settings: OssSettings) -> str:
    # By a name of its own: the other policy may have been made before.
    return _allow(f"image-uploads-{settings.oss_bucket}-list", _listing_statement(settings))


def _listing_statement(settings: OssSettings) -> Mapping[str, object]:
    """To list is a right on the bucket. Source: RAM documentation, "Control access to OSS by directory"."""
    return {
        "Effect": "Allow",
        "Action": ["oss:ListObjects"],
        "Resource": [f"acs:oss:*:*:{settings.oss_bucket}"],
        "Condition": {"StringLike": {"oss:Prefix": ["users/*"]}},
    }


def _allow(name: str, *statements: Mapping[str, object]) -> str:
    policy = json.dumps({"Version": "1", "Statement": statements}, separators=(",", ":"))
    return (
        f"read -r RAM_USER && aliyun ram CreatePolicy --PolicyName {name} --PolicyDocument {quote(policy)} && "
        f'aliyun ram AttachPolicyToUser --PolicyType Custom --PolicyName {name} --UserName "$RAM_USER"'
    )


async def _reading(store: OssStore, key: str, settings: OssSettings, shell: Shell) -> Finding:
    """Whether the object can be read where events will say that it is."""
    try:
        status, body, headers = await store.read(store.link(key))
    except UploadError as error:
        text = f"from here nobody answers at {settings.base_url}: {error.detail}"
        return STORAGE.warning(text, shell.ask("OSS_BASE_URL"))
    if status == HTTPStatus.FORBIDDEN:
        return _forbidden(settings, shell)
    if status != HTTPStatus.OK or body != key.encode():
        text = f"OSS_BASE_URL does not lead to the bucket: {settings.base_url} answers {status}, not with the object"
        return STORAGE.wrong(text, shell.ask("OSS_BASE_URL"))
    if _is_forced_to_download(headers) and not _is_default_domain(settings):
        return STORAGE.warning(f"{settings.base_url} forces browsers to download images", shell.ask("OSS_BASE_URL"))
    return STORAGE.ok(f"it can be read at {settings.base_url}")


async def _listing(store: OssStore, settings: OssSettings, shell: Shell) -> Finding:
    """Whether those who compare the bucket with the rows can do so; uploads need it not."""
    try:
        await store.listed("")
    except StorageRefusedError as error:
        mend = _grant_listing(settings) if error.code == "AccessDenied" else mend_refusal(error, settings, shell)
        return _unlisted(error, mend)
    except UploadError as error:
        return _unlisted(error, None)
    return STORAGE.ok("and lists its objects")


def _unlisted(error: UploadError, mend: str | None) -> Finding:
    text = f"its objects cannot be listed, so neither orphans are found nor `reconcile` works: {error.detail}"
    return STORAGE.warning(text, mend)


def _forbidden(settings: OssSettings, shell: Shell) -> Finding:
    if settings.oss_url_expires_s:
        return STORAGE.wrong("signed URLs are refused: the key lacks oss:GetObject", _grant(settings))
    return STORAGE.warning(
        f"the bucket is private: plain URLs at {settings.base_url} answer 403; signed ones work",
        shell.set(OSS_URL_EXPIRES_S="3600"),
    )


def _is_forced_to_download(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Disposition", "").startswith("attachment") or "x-oss-force-download" in headers


def _is_default_domain(settings: OssSettings) -> bool:
    return (urlsplit(settings.base_url).hostname or "").endswith(".aliyuncs.com")


def default_domain(settings: OssSettings, shell: Shell) -> list[Finding]:
    """A warning, if browsers get objects from the domain that has them downloaded."""
    if not _is_default_domain(settings):
        return []
    text = f"browsers download images from {settings.base_url} instead of showing them: give a domain of your own"
    return [STORAGE.warning(text, shell.ask("OSS_BASE_URL"))]
