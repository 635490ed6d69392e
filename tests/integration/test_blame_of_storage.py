"""Whose fault it is when OSS does not store: each answer of the service, and each way of not answering.

Source of the codes: OSS documentation, the pages of each HTTP status code (400 to 503), and the API reference of
PutObject and DeleteObject.
"""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from fastcrc import crc64

from consumer.adapters.oss import OssStore
from consumer.core.ports import Image
from consumer.settings import OssSettings
from sandbox.oss import Credentials, Fault, Kind, OssServer
from tests.integration.canned_server import CannedServer, Then, http
from tests.integration.verdict import verdict

pytestmark = pytest.mark.real

OTHER_BYTES: Final = "retried storage_unavailable"
AWAY: Final = "held storage_unavailable (storage)"
REFUSED: Final = "held storage_refused (storage)"
FAILS: Final = "fails storage_refused"

# (status, code, finer code): verdict
CODES: Final = {
    # the service is in trouble, or has too much to do
    (500, "InternalError", ""): AWAY,
    (501, "NotImplemented", ""): AWAY,
    (503, "ServiceUnavailable", ""): AWAY,
    (503, "UploadTrafficRateLimitExceeded", ""): AWAY,
    (503, "DownloadTrafficRateLimitExceeded", ""): AWAY,
    (503, "MetaOperationQpsLimitExceeded", ""): AWAY,
    (503, "TotalQpsLimitExceeded", "0004-00000302"): AWAY,
    (503, "ActiveRequestLimitExceeded", ""): AWAY,
    (503, "CpuLimitExceeded", ""): AWAY,
    (429, "QpsLimitExceeded", ""): AWAY,
    (400, "QpsLimitExceeded", ""): AWAY,
    (400, "RequestTimeout", ""): AWAY,
    (408, "RequestTimeout", ""): AWAY,
    # it would refuse any object of ours: the account, the login, the clock, the bucket, the endpoint
    (403, "AccessDenied", "0003-00000001"): REFUSED,
    (403, "AbnormalBucketOwnerStatus", ""): REFUSED,
    (403, "AccessKeyIdAndSecurityTokenNotMatch", ""): REFUSED,
    (403, "BucketDisable", ""): REFUSED,
    (403, "BucketNotBelongTo", ""): REFUSED,
    (403, "CnameDenied", ""): REFUSED,
    (403, "InDebt", ""): REFUSED,
    (403, "InDebtOverdue", ""): REFUSED,
    (403, "InvalidAccessKeyId", "0002-00000902"): REFUSED,
    (403, "InvalidAccessKeyId", "0002-00000903"): REFUSED,
    (403, "InvalidSecurityToken", ""): REFUSED,
    (403, "KmsServiceNotEnabled", ""): REFUSED,
    (403, "RequestTimeTooSkewed", "0002-00000504"): REFUSED,
    (403, "SecurityTokenExpired", ""): REFUSED,
    (403, "SignatureDoesNotMatch", "0002-00000040"): REFUSED,
    (403, "UserDisable", "0003-00000801"): REFUSED,
    (400, "InvalidArgument", "0002-00000226"): REFUSED,  # the signature names another region
    (400, "InvalidBucketName", ""): REFUSED,
    (400, "InvalidDigest", "0017-00000503"): REFUSED,
    (400, "InvalidEncryptionAlgorithmError", "0005-00000003"): REFUSED,
    (400, "PublicEndpointForbidden", ""): REFUSED,
    (404, "NoSuchBucket", "0015-00000101"): REFUSED,
    (405, "MethodNotAllowed", ""): REFUSED,
    (409, "", "0005-00000214"): REFUSED,  # the key that encrypts the bucket is disabled
    (409, "", "0005-00000215"): REFUSED,  # or waits to be deleted
    (411, "MissingContentLength", ""): REFUSED,
    (412, "PreconditionFailed", ""): REFUSED,
    (409, "", "0016-00000605"): REFUSED,  # versioning is being changed right now
    # nothing but another object would be taken
    (400, "InvalidObjectName", ""): FAILS,
    (400, "InvalidArgument", ""): FAILS,
    (400, "EntityTooLarge", ""): FAILS,
    # not the service, but something on the way to it
    (302, "", ""): REFUSED,
    (307, "", ""): REFUSED,
    (404, "", ""): REFUSED,
    (413, "", ""): REFUSED,
    (502, "", ""): AWAY,
    (504, "", ""): AWAY,
}

# What a bucket keeps it does not give up; whether a PUT may count it as its own is a question to the bucket: test_oss.
DELETE_CODES: Final = {(409, "FileImmutable", "0026-00000005"): REFUSED}

HTML: Final = b"<html><body>Bad Gateway</body></html>"
CUT: Final = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n<Error><Code>AccessD"

# (answer, what becomes of the connection): verdict
ANSWERS: Final = {
    "no answer": (b"", Then.CLOSE, AWAY),
    "a reset": (b"", Then.RESET, AWAY),
    "a reset in the middle of an answer": (CUT, Then.RESET, AWAY),
    "an answer that ends early": (CUT, Then.CLOSE, AWAY),
    "silence": (b"", Then.SILENCE, AWAY),
    "silence in the middle of an answer": (CUT, Then.SILENCE, AWAY),
    "something that is not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", Then.CLOSE, AWAY),
    "a proxy's page": (http(502, HTML), Then.CLOSE, AWAY),
    "a proxy's refusal": (http(403, HTML), Then.CLOSE, REFUSED),
    "a way to a login page": (http(302, headers="Location: {url}/login\r\n"), Then.CLOSE, REFUSED),
    "XML that is none of OSS": (http(403, b"<html/>"), Then.CLOSE, REFUSED),
}

PUT_ANSWERS: Final = {
    "success without a checksum": (http(200), Then.CLOSE, AWAY),
    "a login page instead of success": (http(200, HTML), Then.CLOSE, AWAY),
    "another object's checksum": (http(200, headers="x-oss-hash-crc64ecma: 1\r\n"), Then.CLOSE, OTHER_BYTES),
}

FAULTS: Final = {
    Kind.STALL: AWAY,
    Kind.RESET: AWAY,
    Kind.COMMIT_THEN_DROP: AWAY,
    Kind.WRONG_CRC: OTHER_BYTES,
    Kind.DENY: REFUSED,
    Kind.THROTTLE: AWAY,
    Kind.ERROR: AWAY,
}

ENDPOINTS: Final = {
    "http://127.0.0.1:1": AWAY,
    "http://no-such-host.invalid": AWAY,
    "https://{plain}": AWAY,
}

Use: TypeAlias = Callable[[OssStore], Awaitable[None]]

VERDICTS: Final = [
    *CODES.values(),
    *(verdict for _, _, verdict in (*ANSWERS.values(), *PUT_ANSWERS.values())),
    *FAULTS.values(),
    *ENDPOINTS.values(),
]


@asynccontextmanager
async def store(endpoint: str, then: Then = Then.CLOSE) -> AsyncIterator[OssStore]:
    settings: dict[str, Any] = {
        "oss_bucket": "images",
        "oss_region": "cn-hangzhou",
        "OSS_ACCESS_KEY": "key",
        "OSS_SECRET": "secret",
    }
    opened = OssStore(OssSettings(**settings, oss_endpoint=endpoint), timeout_s=0.3 if then is Then.SILENCE else 10)
    try:
        yield opened
    finally:
        await opened.close()


async def put(into: OssStore) -> None:
    image = Image(io.BytesIO(b"fox"), 3, crc64.xz(b"fox"))
    await into.put("users/u/jobs/j/image-1-0.png", image, content_type="image/png", event_id="e")


async def delete(from_: OssStore) -> None:
    await from_.delete("users/u/jobs/j/image-1-0.png")


def error_xml(code: str, ec: str) -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Error>
  <Code>{code}</Code>
  <Message>The service says why.</Message>
  <RequestId>57ABD896CCB80C366955AAAA</RequestId>
  <HostId>images.oss-cn-hangzhou.aliyuncs.com</HostId>
  <EC>{ec}</EC>
</Error>""".encode()


@pytest.mark.parametrize(
    ("use", "answer", "expected"),
    [(use, *row) for use, table in ((put, CODES), (delete, CODES | DELETE_CODES)) for row in table.items()],
)
async def test_each_code_has_its_blame(use: Use, answer: tuple[int, str, str], expected: str) -> None:
    status, code, ec = answer
    body = error_xml(code, ec) if code or ec else HTML
    async with CannedServer(http(status, body)) as server, store(server.url) as opened:
        assert await verdict(use(opened)) == expected
        assert server.asked == 1


@pytest.mark.parametrize(
    ("use", "answer", "then", "expected"),
    [
        pytest.param(use, *row, id=f"{use.__name__}: {name}")
        for use, table in ((put, ANSWERS | PUT_ANSWERS), (delete, ANSWERS))
        for name, row in table.items()
    ],
)
async def test_each_way_of_not_answering_is_the_stores_fault(
    use: Use, answer: bytes, then: Then, expected: str
) -> None:
    async with CannedServer(answer, then) as server, store(server.url, then) as opened:
        assert await verdict(use(opened)) == expected
        assert server.asked <= 2, "once more over a new connection, and no redirect is followed"


@pytest.mark.parametrize(("kind", "expected"), FAULTS.items())
async def test_each_fault_of_the_sandbox_has_its_blame(kind: Kind, expected: str, tmp_path: Path) -> None:
    then = Then.SILENCE if kind is Kind.STALL else Then.CLOSE
    account = Credentials("key", "secret")
    async with OssServer(tmp_path, account, bucket="images") as server, store(server.url, then) as opened:
        server.faults.add(Fault(kind))
        assert await verdict(put(opened)) == expected
        server.faults.clear()
        await put(opened)


@pytest.mark.parametrize("use", [put, delete])
@pytest.mark.parametrize(("endpoint", "expected"), ENDPOINTS.items())
async def test_a_store_that_cannot_be_reached_is_away(use: Use, endpoint: str, expected: str) -> None:
    async with CannedServer(http(200)) as plain, store(endpoint.format(plain=plain.url[len("http://") :])) as opened:
        assert await verdict(use(opened)) == expected
