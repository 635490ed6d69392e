"""One suite for the port `ObjectStore`: the fake, and the OSS adapter against a server that speaks the protocol."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from fastcrc import crc64

from consumer.adapters.oss import OssStore
from consumer.core.errors import TransientError
from consumer.core.ports import Image, ObjectStore
from consumer.settings import OssSettings
from sandbox.oss import Credentials, OssServer
from tests.fakes import FakeStore

KEY = "users/test@factory-buy.com+1|x:y/jobs/abc123/image-1703123456789-1f3a9c02d4e5b677.png"


def image(data: bytes) -> Image:
    return Image(io.BytesIO(data), len(data), crc64.xz(data))


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[OssStore]:
    async with OssServer(tmp_path, Credentials("key", "secret"), bucket="images") as server:
        store = OssStore(
            OssSettings(
                oss_bucket="images",
                oss_region="cn-hangzhou",
                OSS_ACCESS_KEY="key",
                OSS_SECRET="secret",
                oss_endpoint=server.url,
                oss_base_url=f"{server.url}/images",
            ),
            timeout_s=10,
        )
        yield store
        await store.close()


@pytest.fixture(params=["fake", pytest.param("OSS", marks=pytest.mark.real)])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "fake":
        return FakeStore()
    found: ObjectStore = request.getfixturevalue("real")
    return found


async def stored(store: ObjectStore, key: str) -> tuple[bytes, dict[str, str]]:
    if isinstance(store, FakeStore):
        return store.objects[key], store.headers[key]
    async with aiohttp.ClientSession() as session, session.get(store.url(key)) as response:
        assert response.status == 200
        return await response.read(), dict(response.headers)


@pytest.mark.parametrize("size_bytes", [0, 1, 262_144, 262_145, 3_000_000])
async def test_an_object_is_what_was_put(store: ObjectStore, size_bytes: int) -> None:
    data = (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]
    await store.put(KEY, image(data), content_type="image/png", event_id="0c5e")
    body, headers = await stored(store, KEY)
    assert body == data
    assert headers["Content-Type"] == "image/png"
    assert headers["x-oss-meta-event-id"] == "0c5e"


async def test_putting_the_same_again_changes_nothing(store: ObjectStore) -> None:
    picture = image(b"fox")
    await store.put(KEY, picture, content_type="image/png", event_id="0c5e")
    await store.put(KEY, picture, content_type="image/png", event_id="0c5e")
    assert (await stored(store, KEY))[0] == b"fox"


async def test_bytes_that_are_not_those_that_were_summed_are_an_error(store: ObjectStore) -> None:
    changed = Image(io.BytesIO(b"cat"), 3, crc64.xz(b"fox"))
    with pytest.raises(TransientError, match="checksum"):
        await store.put(KEY, changed, content_type="image/png", event_id="0c5e")


async def test_a_url_ends_with_the_key(store: ObjectStore) -> None:
    assert store.url("users/a@b/jobs/j/x.png").endswith("/users/a@b/jobs/j/x.png")
    assert store.link("users/a@b/jobs/j/x.png").startswith(store.url("users/a@b/jobs/j/x.png"))


async def test_what_was_deleted_is_gone_and_deleting_again_is_harmless(store: ObjectStore) -> None:
    await store.put(KEY, image(b"fox"), content_type="image/png", event_id="0c5e")
    for _ in range(2):
        await store.delete(KEY)
    with pytest.raises((KeyError, AssertionError)):
        await stored(store, KEY)
