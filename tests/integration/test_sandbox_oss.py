"""The sandbox's OSS server, against stock SDKs and over the raw wire."""

import asyncio
import base64
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from email.utils import formatdate, parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import alibabacloud_oss_v2 as oss_v2  # type: ignore[import-untyped]  # ships no types
import fastcrc
import oss2
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from sandbox.oss import Credentials, Fault, Kind, OssServer, store
from sandbox.oss.store import Incoming

pytestmark = pytest.mark.real

ACCOUNT = Credentials("AK", "secret")
ODD_KEYS = ["a b+c%20.png", "é/雪/🦊", "a//b", "ctl\x01\n\x7f", "<&>'\"", "a?b#c", "users/t@b.com/x"]


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[OssServer]:
    async with OssServer(tmp_path, ACCOUNT, bucket="images") as running:
        yield running


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


Call = Callable[..., Awaitable[oss2.models.RequestResult]]


def oss2_bucket(url: str, auth: oss2.AuthV4 = None, name: str = "images") -> oss2.Bucket:
    return oss2.Bucket(auth or oss2.AuthV4("AK", "secret"), url, name, region="cn-hangzhou")


def presigned(server_url: str, method: str, key: str, headers: dict[str, str] | None = None) -> URL:
    signed = oss2_bucket(server_url).sign_url(method, key, 60, headers=headers, slash_safe=True)
    return URL(signed, encoded=True)


@pytest_asyncio.fixture
async def call(server: OssServer) -> Call:
    """Calls a method of a stock oss2 bucket in a thread."""
    bucket = oss2_bucket(server.url)

    async def in_thread(method: str, *arguments: object, **options: object) -> oss2.models.RequestResult:
        return await asyncio.to_thread(getattr(bucket, method), *arguments, **options)

    return in_thread


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_oss2_finds_what_it_stored(call: Call, key: str) -> None:
    headers = {"x-oss-meta-event-id": "e1", "Cache-Control": "max-age=9", "Content-Type": "image/png"}
    stored = await call("put_object", key, b"hello", headers=headers)
    got = await call("get_object", key)
    head = await call("head_object", key)

    assert got.read() == b"hello"
    assert stored.etag == hashlib.md5(b"hello").hexdigest().upper()
    assert stored.crc == got.server_crc == fastcrc.crc64.xz(b"hello")
    assert {name: head.headers[name] for name in headers} == headers
    assert head.headers["x-oss-object-type"] == "Normal"
    assert await call("object_exists", key)
    deleted = await call("delete_object", key)
    assert deleted.status == 204
    assert not await call("object_exists", key)


async def test_oss2_lists_and_deletes_many(server: OssServer, call: Call) -> None:
    for key in ODD_KEYS:
        await call("put_object", key, b"x")
    bucket = oss2_bucket(server.url)

    def everything(**options: object) -> list[oss2.models.SimplifiedObjectInfo]:
        return list(oss2.ObjectIteratorV2(bucket, max_keys=2, **options))

    objects = await asyncio.to_thread(everything)
    groups = await asyncio.to_thread(everything, delimiter="/")
    assert [found.key for found in objects] == sorted(ODD_KEYS)
    assert {found.key for found in groups if found.is_prefix()} == {"a/", "é/", "users/"}
    deleted = await call("batch_delete_objects", [*ODD_KEYS, "was not there"])
    assert deleted.deleted_keys == [*ODD_KEYS, "was not there"]
    assert (await call("list_objects_v2")).object_list == []


async def test_the_new_sdk_works_unchanged(server: OssServer) -> None:
    config = oss_v2.config.load_default()
    config.credentials_provider = oss_v2.credentials.StaticCredentialsProvider("AK", "secret")
    config.region, config.endpoint, config.use_path_style = "cn-hangzhou", server.url, True
    client = oss_v2.Client(config)

    def everything() -> None:
        for key in ODD_KEYS:
            client.put_object(oss_v2.PutObjectRequest(bucket="images", key=key, body=b"hello"))
            got = client.get_object(oss_v2.GetObjectRequest(bucket="images", key=key))
            assert got.body is not None
            with got.body as body:
                assert body.read() == b"hello"
            assert client.is_object_exist("images", key)
        pages = client.list_objects_v2_paginator(limit=2).iter_page(oss_v2.ListObjectsV2Request(bucket="images"))
        listed = [found.key for page in pages for found in page.contents or []]
        assert listed == sorted(ODD_KEYS)
        objects = [oss_v2.DeleteObject(key=key) for key in ODD_KEYS]
        client.delete_multiple_objects(
            oss_v2.DeleteMultipleObjectsRequest(bucket="images", objects=objects, quiet=True)
        )
        assert not client.is_object_exist("images", ODD_KEYS[0])

    await asyncio.to_thread(everything)


async def test_any_key_goes_over_the_wire(server: OssServer) -> None:
    bucket = oss2_bucket(server.url)

    @settings(deadline=None)
    @given(st.text(st.sampled_from("ab/ %+.\\~@&=;?#\n\r\x01\x7fé🦊"), max_size=12).map("k{}".format))
    def round_trip(key: str) -> None:
        connection = HTTPConnection("127.0.0.1", URL(server.url).port or 0)
        for method, sent, received in (("PUT", key.encode(), b""), ("GET", b"", key.encode())):
            url = urlsplit(bucket.sign_url(method, key, 60, slash_safe=True))
            connection.request(method, f"{url.path}?{url.query}", sent)
            answer = connection.getresponse()
            assert (answer.read(), answer.status) == (received, 200)
        connection.close()

    await asyncio.to_thread(round_trip)


async def put(
    http: aiohttp.ClientSession, server: OssServer, key: str, body: bytes | AsyncIterator[bytes], **headers: str
) -> tuple[int, Mapping[str, str], str]:
    named = {"Content-Type": "image/png"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.put(presigned(server.url, "PUT", key, named), data=body, headers=named) as answer:
        return answer.status, answer.headers, await answer.text()


async def get(
    http: aiohttp.ClientSession, server: OssServer, key: str, **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.get(f"{server.url}/images/{key}", headers=named) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_a_large_body_is_streamed(http: aiohttp.ClientSession, server: OssServer) -> None:
    chunk = bytes(range(256)) * 4096

    async def body() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield chunk

    status, headers, _ = await put(http, server, "large", body())
    assert (status, headers["Content-Length"]) == (200, "0")
    assert len(headers["x-oss-request-id"]) == 24
    assert headers["x-oss-hash-crc64ecma"] == str(fastcrc.crc64.xz(chunk * 8))
    assert (await get(http, server, "large"))[2] == chunk * 8


async def test_what_is_encoded_is_kept_encoded(http: aiohttp.ClientSession, server: OssServer) -> None:
    await put(http, server, "key", b"not gzip at all", Content_Encoding="gzip", Expires="0")
    async with (
        aiohttp.ClientSession(auto_decompress=False) as plain,
        plain.get(f"{server.url}/images/key") as answer,
    ):
        assert (await answer.read(), answer.headers["Content-Encoding"]) == (b"not gzip at all", "gzip")
        assert answer.headers["Expires"] == "0"


async def test_a_body_that_breaks_off_is_not_stored(
    server: OssServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_is_here, is_given_up = asyncio.Event(), asyncio.Event()

    class Watched(Incoming):
        def write(self, chunk: bytes) -> None:
            super().write(chunk)
            half_is_here.set()

        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)
            is_given_up.set()

    monkeypatch.setattr(store, "Incoming", Watched)
    url = presigned(server.url, "PUT", "half")
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"PUT {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: 9\r\n\r\nhalf".encode())
    await half_is_here.wait()
    writer.close()
    await is_given_up.wait()

    assert server._store.find("half") is None
    assert list((tmp_path / "incoming").iterdir()) == []


async def test_curl_is_told_to_continue_only_if_it_may(server: OssServer) -> None:
    url = presigned(server.url, "PUT", "key")
    for path, first_line in ((url.raw_path_qs, b"100 Continue"), ("/images/key", b"403 Forbidden")):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = f"PUT {path} HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        writer.write(head.encode())
        assert first_line in await reader.readline()
        writer.close()
        await writer.wait_closed()


STRICT = {"x_oss_range_behavior": "standard"}


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({"Range": "bytes=2-4"}, 206, b"234"),
        ({"Range": "bytes=7-"}, 206, b"789"),
        ({"Range": "bytes=-3"}, 206, b"789"),
        ({"Range": "bytes=8-20"}, 200, b"0123456789"),
        ({"Range": "bytes=8-20"} | STRICT, 206, b"89"),
        ({"Range": "bytes=-20"} | STRICT, 206, b"0123456789"),
        ({"Range": "bytes=10-"}, 200, b"0123456789"),
        ({"Range": "bytes=10-"} | STRICT, 416, None),
        ({"Range": "bytes=0-1,3-4"}, 200, b"0123456789"),
        ({"Range": "lines=1-2"}, 200, b"0123456789"),
    ],
)
async def test_a_range_is_answered_as_the_service_does(
    http: aiohttp.ClientSession, server: OssServer, headers: dict[str, str], status: int, body: bytes | None
) -> None:
    await put(http, server, "digits", b"0123456789")
    answered, told, content = await get(http, server, "digits", **headers)

    assert answered == status
    assert body is None or content == body
    assert ("Content-Range" in told) == (status == 206)


async def test_a_browser_is_told_when_nothing_changed(http: aiohttp.ClientSession, server: OssServer) -> None:
    await put(http, server, "key", b"x")
    _, headers, _ = await get(http, server, "key")
    modified_at = parsedate_to_datetime(headers["Last-Modified"]).timestamp()
    earlier = formatdate(modified_at - 1, usegmt=True)

    assert (await get(http, server, "key", If_None_Match=headers["Etag"]))[0] == 304
    assert (await get(http, server, "key", If_None_Match='"other"'))[0] == 200
    assert (await get(http, server, "key", If_Modified_Since=headers["Last-Modified"]))[0] == 304
    assert (await get(http, server, "key", If_Modified_Since=earlier))[0] == 200
    assert (await get(http, server, "key", If_Match='"other"'))[0] == 412
    assert (await get(http, server, "key", If_Unmodified_Since=earlier))[0] == 412


async def test_a_wrong_md5_stores_nothing(http: aiohttp.ClientSession, server: OssServer) -> None:
    right = base64.b64encode(hashlib.md5(b"x").digest()).decode()
    for wrong in (base64.b64encode(bytes(16)).decode(), "no base64!", "AAAA"):
        status, _, text = await put(http, server, "key", b"x", Content_MD5=wrong)
        assert (status, "<Code>InvalidDigest</Code>" in text) == (400, True)
    assert server._store.find("key") is None
    assert (await put(http, server, "key", b"x", Content_MD5=right))[0] == 200


async def test_overwriting_can_be_forbidden(http: aiohttp.ClientSession, server: OssServer) -> None:
    assert (await put(http, server, "key", b"1", x_oss_forbid_overwrite="true"))[0] == 200
    status, _, text = await put(http, server, "key", b"2", x_oss_forbid_overwrite="true")
    assert (status, "<Code>FileAlreadyExists</Code>" in text) == (409, True)
    assert (await get(http, server, "key"))[2] == b"1"


async def test_only_reading_is_public(http: aiohttp.ClientSession, server: OssServer, tmp_path: Path) -> None:
    await put(http, server, "key", b"x")
    plain = f"{server.url}/images/key"

    assert (await get(http, server, "key"))[0] == 200
    for method, url in (("PUT", plain), ("DELETE", plain), ("GET", f"{server.url}/images/?list-type=2")):
        async with http.request(method, url) as answer:
            assert (answer.status, "<Code>AccessDenied</Code>" in await answer.text()) == (403, True)
    async with OssServer(tmp_path / "p", ACCOUNT, bucket="images", private=True) as private:
        assert (await get(http, private, "key"))[0] == 403


async def test_a_missing_bucket_comes_before_a_wrong_key(server: OssServer) -> None:
    other = oss2_bucket(server.url, oss2.AuthV4("nobody", "nothing"), name="other")
    with pytest.raises(oss2.exceptions.NoSuchBucket):
        await asyncio.to_thread(other.put_object, "key", b"x")


async def test_an_endpoint_of_another_region_names_the_right_one(tmp_path: Path) -> None:
    right = "oss-cn-beijing.aliyuncs.com"
    async with OssServer(tmp_path, ACCOUNT, bucket="images", lives_at=right) as server:
        with pytest.raises(oss2.exceptions.AccessDenied) as caught:
            await asyncio.to_thread(oss2_bucket(server.url).put_object, "key", b"x")
    assert caught.value.details["Endpoint"] == right
    assert caught.value.details["EC"] == "0003-00001403"


async def test_virtual_host_style_finds_the_same_object(http: aiohttp.ClientSession, server: OssServer) -> None:
    await put(http, server, "a/b", b"x")
    host = {"Host": "images.oss-cn-hangzhou.example.com"}
    async with http.get(f"{server.url}/a/b", headers=host) as answer:
        assert await answer.read() == b"x"


async def test_a_head_tells_its_error_in_a_header(call: Call) -> None:
    with pytest.raises(oss2.exceptions.NotFound) as refusal:
        await call("head_object", "nothing")
    xml = base64.b64decode(refusal.value.headers["x-oss-err"])
    assert b"<Code>NoSuchKey</Code>" in xml
    assert refusal.value.request_id.encode() in xml


async def test_bad_names_and_other_operations_are_refused(call: Call) -> None:
    with pytest.raises(oss2.exceptions.InvalidObjectName):
        await call("put_object", "a" * 1024, b"x")
    for method in ("init_multipart_upload", "get_object_acl"):
        with pytest.raises(oss2.exceptions.ServerError) as refusal:
            await call(method, "key")
        assert (refusal.value.status, refusal.value.code) == (501, "NotImplemented")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault(Kind.DENY), 403, "AccessDenied"),
        (Fault(Kind.THROTTLE), 503, "UploadTrafficRateLimitExceeded"),
        (Fault(Kind.ERROR), 500, "InternalError"),
        (Fault(Kind.ERROR, code="UserDisable"), 403, "UserDisable"),
    ],
)
async def test_a_refusal_on_demand(server: OssServer, call: Call, fault: Fault, status: int, code: str) -> None:
    fault.times = 1
    server.faults.add(fault)
    with pytest.raises(oss2.exceptions.ServerError) as refusal:
        await call("put_object", "key", b"x")
    assert (refusal.value.status, refusal.value.code) == (status, code)
    assert (await call("put_object", "key", b"x")).status == 200


async def test_a_rule_is_about_some_requests_only(http: aiohttp.ClientSession, server: OssServer) -> None:
    server.faults.add(Fault(Kind.DENY, method="PUT", key_prefix="users/a"))

    assert (await put(http, server, "users/a/1", b"x"))[0] == 403
    assert (await put(http, server, "users/b/1", b"x"))[0] == 200
    assert (await get(http, server, "users/a/1"))[0] == 404
    assert (await put(http, server, "users/a/1", b"x"))[0] == 403


async def test_a_connection_can_be_reset(http: aiohttp.ClientSession, server: OssServer) -> None:
    server.faults.add(Fault(Kind.RESET))
    reader, writer = await asyncio.open_connection(*server.url.removeprefix("http://").split(":"))
    writer.write(b"GET /images/key HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(aiohttp.ClientError):
        await put(http, server, "key", b"x")
    assert server._store.find("key") is None


async def test_a_body_can_be_cut(http: aiohttp.ClientSession, server: OssServer) -> None:
    await put(http, server, "key", b"0123456789")
    server.faults.add(Fault(Kind.CUT, after_bytes=4, times=1))
    async with http.get(f"{server.url}/images/key") as answer:
        assert answer.headers["Content-Length"] == "10"
        assert await answer.content.readexactly(4) == b"0123"
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.readexactly(1)
    assert (await get(http, server, "key"))[2] == b"0123456789"


async def test_an_object_can_be_stored_without_an_answer(http: aiohttp.ClientSession, server: OssServer) -> None:
    server.faults.add(Fault(Kind.COMMIT_THEN_DROP, times=2))  # aiohttp itself tries a PUT a second time
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await put(http, server, "key", b"x")
    assert (await get(http, server, "key"))[2] == b"x"


async def test_a_checksum_can_be_wrong(server: OssServer, call: Call) -> None:
    server.faults.add(Fault(Kind.WRONG_CRC, times=1))
    with pytest.raises(oss2.exceptions.InconsistentError):
        await call("put_object", "key", b"x")


async def test_a_stalled_request_does_not_hold_up_the_end(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    is_taken = asyncio.Event()

    class Watched(Fault):
        def matches(self, method: str, key: str) -> bool:
            is_taken.set()
            return Fault.matches(self, method, key)

    async with asyncio.timeout(10):
        async with OssServer(tmp_path, ACCOUNT, bucket="images") as server:
            server.faults.add(Watched(Kind.STALL))
            stalled = asyncio.create_task(put(http, server, "key", b"x"))
            await is_taken.wait()
            assert not stalled.done()
        with pytest.raises(aiohttp.ClientError):
            await stalled


async def test_the_control_api_sets_rules_and_tells_counts(http: aiohttp.ClientSession, server: OssServer) -> None:
    control = f"{server.url}/-"
    rules = [{"kind": "deny", "method": "PUT", "times": 2}]
    async with http.put(f"{control}/faults", json=rules) as answer:
        assert answer.status == 204
    assert (await put(http, server, "key", b"x"))[0] == 403
    async with http.get(f"{control}/faults") as answer:
        assert [(rule["kind"], rule["times"]) for rule in await answer.json()] == [("deny", 1)]
    for wrong in ([{"kind": "explode"}], [{"knid": "deny"}], [{"kind": "error", "code": "Nonsense"}], 1):
        async with http.put(f"{control}/faults", json=wrong) as answer:
            assert answer.status == 400
    async with http.delete(f"{control}/faults") as answer:
        assert answer.status == 204
    assert (await put(http, server, "key", b"x"))[0] == 200
    async with http.get(f"{control}/requests") as answer:
        assert await answer.json() == {"PUT": 2}


async def start(data: Path) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sandbox.oss", "--data", str(data), "--bucket", "images", "--access-key", "AK"),
        env=os.environ | {"SANDBOX_OSS_SECRET": "secret"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, (await process.stdout.readline()).decode().strip()


async def test_a_process_keeps_what_it_answered_through_a_kill(tmp_path: Path) -> None:
    process, url = await start(tmp_path)
    await asyncio.to_thread(oss2_bucket(url).put_object, "key", b"x" * 300_000)
    process.kill()
    await process.communicate()
    process, url = await start(tmp_path)
    got = await asyncio.to_thread(oss2_bucket(url).get_object, "key")
    assert await asyncio.to_thread(got.read) == b"x" * 300_000
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0


async def test_a_process_without_a_secret_says_what_to_set(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sandbox.oss", "--data", str(tmp_path), "--bucket", "images"),
        env={name: value for name, value in os.environ.items() if name != "SANDBOX_OSS_SECRET"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert (process.returncode, b"SANDBOX_OSS_SECRET" in errors) == (2, True)
