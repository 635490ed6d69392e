import io
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fastcrc import crc64
from yarl import URL

from consumer.adapters.oss import OssStore
from consumer.adapters.oss_refusal import StorageRefusedError
from consumer.core.errors import DependencyError, TransientError, UploadError
from consumer.core.ports import Image
from consumer.settings import OssSettings
from sandbox.oss import Credentials, Fault, Kind, OssServer
from schemas.reasons import Reason

pytestmark = pytest.mark.real
KEY = "users/u/jobs/j/image-1-0123456789abcdef.png"
Make = Callable[..., OssStore]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[OssServer]:
    async with OssServer(tmp_path, Credentials("key", "CANARY-secret"), bucket="images", private=True) as server:
        yield server


@pytest.fixture
async def make(server: OssServer) -> AsyncIterator[Make]:
    made: list[OssStore] = []

    def store(**changes: Any) -> OssStore:
        settings = {
            "oss_bucket": "images",
            "oss_region": "cn-hangzhou",
            "OSS_ACCESS_KEY": "key",
            "OSS_SECRET": "CANARY-secret",
            "oss_endpoint": server.url,
        }
        made.append(OssStore(OssSettings(**(settings | changes)), timeout_s=5))
        return made[-1]

    yield store
    for one in made:
        await one.close()


def image(data: bytes) -> Image:
    return Image(io.BytesIO(data), len(data), crc64.xz(data))


async def verdict(store: OssStore) -> UploadError:
    with pytest.raises(UploadError) as caught:
        await store.put(KEY, image(b"fox"), content_type="image/png", event_id="e")
    assert "CANARY" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(Kind.DENY), Reason.STORAGE_REFUSED),
        (Fault(Kind.DENY, code="UserDisable"), Reason.STORAGE_REFUSED),
        (Fault(Kind.THROTTLE), Reason.STORAGE_UNAVAILABLE),
        (Fault(Kind.ERROR), Reason.STORAGE_UNAVAILABLE),
        (Fault(Kind.ERROR, code="RequestTimeout"), Reason.STORAGE_UNAVAILABLE),
        (Fault(Kind.RESET), Reason.STORAGE_UNAVAILABLE),
        (Fault(Kind.COMMIT_THEN_DROP), Reason.STORAGE_UNAVAILABLE),
    ],
)
async def test_trouble_of_the_store_is_a_neighbours_fault(
    make: Make, server: OssServer, fault: Fault, reason: Reason
) -> None:
    server.faults.add(fault)
    error = await verdict(make())
    assert isinstance(error, DependencyError)
    assert (error.dependency, error.reason) == ("storage", reason)
    server.faults.clear()
    await make().put(KEY, image(b"fox"), content_type="image/png", event_id="e")


@pytest.mark.parametrize(
    "change",
    [
        {"OSS_SECRET": "CANARY-wrong"},
        {"OSS_ACCESS_KEY": "nobody"},
        {"oss_bucket": "missing"},
        {"oss_region": "cn-beijing"},
        {"oss_session_token": "CANARY-token"},
    ],
)
async def test_wrong_settings_are_a_neighbours_fault_and_the_answers_code_is_told(
    make: Make, change: dict[str, str]
) -> None:
    error = await verdict(make(**change))
    assert isinstance(error, DependencyError)
    assert "OSS answered 40" in error.detail


async def test_a_store_that_is_not_there_is_a_neighbours_fault(make: Make) -> None:
    error = await verdict(make(oss_endpoint="http://127.0.0.1:1"))
    assert isinstance(error, DependencyError)
    assert error.reason is Reason.STORAGE_UNAVAILABLE


async def test_a_checksum_that_differs_is_tried_again(make: Make, server: OssServer) -> None:
    server.faults.add(Fault(Kind.WRONG_CRC))
    assert isinstance(await verdict(make()), TransientError)


async def test_a_bucket_that_keeps_what_it_has_takes_the_same_bytes_twice_and_others_not(
    make: Make, server: OssServer
) -> None:
    await make().put(KEY, image(b"fox"), content_type="image/png", event_id="e")
    server.faults.add(Fault(Kind.DENY, method="PUT", code="FileAlreadyExists"))
    await make().put(KEY, image(b"fox"), content_type="image/png", event_id="e")
    for key, data in ((KEY, b"cat"), (f"{KEY}.missing", b"fox")):
        with pytest.raises(StorageRefusedError, match="FileAlreadyExists"):
            await make().put(key, image(data), content_type="image/png", event_id="e")


async def test_the_object_has_the_headers_of_the_contract(make: Make, server: OssServer) -> None:
    store = make()
    await store.put(KEY, image(b"fox"), content_type="image/png", event_id="a b/ü\r\n%")
    signed = make(oss_url_expires_s=60).link(KEY)
    async with aiohttp.ClientSession() as session:
        async with session.get(URL(signed, encoded=True)) as response:
            assert response.status == 200
            assert await response.read() == b"fox"
            assert response.headers["Content-Type"] == "image/png"
            assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert response.headers["x-oss-meta-event-id"] == "a%20b%2F%C3%BC%0D%0A%25"
            assert response.headers["x-oss-hash-crc64ecma"] == str(crc64.xz(b"fox"))
        async with session.get(f"{server.url}/images/{KEY}") as response:
            assert response.status == 403  # the bucket is private: only the signed link works


async def test_plain_urls_are_of_the_base_and_percent_encoded_but_for_slash_and_at(make: Make) -> None:
    key = "users/a+b|c:d@e/jobs/j/x.png"
    assert make().url(key) == "https://images.oss-cn-hangzhou.aliyuncs.com/users/a%2Bb%7Cc%3Ad@e/jobs/j/x.png"
    assert make(oss_base_url="https://cdn.test/img/").link(key).startswith("https://cdn.test/img/users/")


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({}, "https://images.oss-cn-hangzhou.aliyuncs.com/users/a@b/"),
        (
            {"oss_endpoint": "https://oss-cn-hangzhou-internal.aliyuncs.com"},
            "https://images.oss-cn-hangzhou.aliyuncs.com/users/a@b/",
        ),
        ({"oss_base_url": "https://img.test"}, "https://img.test/users/a@b/"),
        ({"oss_endpoint": "https://own.test", "oss_cname": True}, "https://own.test/users/a@b/"),
    ],
)
async def test_a_presigned_link_is_one_that_a_browser_can_reach(make: Make, change: dict[str, Any], start: str) -> None:
    settings = {"oss_endpoint": None, "oss_url_expires_s": 60} | change
    link = make(**settings).link("users/a@b/jobs/j/x.png")
    assert link.startswith(f"{start}jobs/j/x.png?")
    assert "x-oss-signature=" in link


async def test_a_probe_puts_and_deletes_and_leaves_nothing(make: Make, server: OssServer) -> None:
    await make().probe()
    assert (server.requests["PUT"], server.requests["DELETE"]) == (1, 1)
    server.faults.add(Fault(Kind.DENY, method="DELETE"))
    with pytest.raises(DependencyError):
        await make().probe()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"oss_endpoint": "http://oss.test:{port}"},
        {"oss_endpoint": "http://images.own.test:{port}", "oss_cname": True},
    ],
)
async def test_many_are_listed_and_deleted_whichever_way_the_bucket_is_named(
    make: Make, server: OssServer, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    port = URL(server.url).port
    here = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: here)
    store = make(
        **{name: value.format(port=port) if isinstance(value, str) else value for name, value in change.items()}
    )
    await store.put(KEY, image(b"fox"), content_type="image/png", event_id="e")
    assert [found.key for found in await store.listed("")] == [KEY]
    assert await store.delete_many([KEY]) == {KEY}
    assert await store.listed("") == []


async def test_many_are_listed_and_deleted_with_a_token(tmp_path: Path, make: Make) -> None:
    account = Credentials("key", "CANARY-secret", "CANARY/to+ken==")
    async with OssServer(tmp_path / "sts", account, bucket="images") as server:
        store = make(oss_endpoint=server.url, oss_session_token=account.security_token)
        assert await store.listed("") == []
        assert await store.delete_many([KEY]) == {KEY}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(Kind.DENY), Reason.STORAGE_REFUSED),
        (Fault(Kind.THROTTLE), Reason.STORAGE_UNAVAILABLE),
        (Fault(Kind.RESET), Reason.STORAGE_UNAVAILABLE),
    ],
)
async def test_trouble_with_many_is_blamed_as_trouble_with_one(
    make: Make, server: OssServer, fault: Fault, reason: Reason
) -> None:
    server.faults.add(fault)
    for asked in (make().listed(""), make().delete_many([KEY])):
        with pytest.raises(DependencyError) as caught:
            await asked
        assert (caught.value.dependency, caught.value.reason) == ("storage", reason)
