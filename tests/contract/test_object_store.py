"""One suite for the port `ObjectStore`: the fake, and the OSS adapter against a server that speaks the protocol."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import aiohttp
import pytest
from fastcrc import crc64

from consumer.adapters.oss import OssStore
from consumer.core.errors import PermanentError, TransientError
from consumer.core.ports import Image, ObjectStore
from consumer.settings import OssSettings
from sandbox.oss import Credentials, Fault, Kind, OssServer
from tests.fakes import FakeStore

EVERY_CHARACTER = "Az09._@+|:-"  # of a user id
KEY = "users/test@factory-buy.com+1|x:y/jobs/abc123/image-1703123456789-1f3a9c02d4e5b677.png"


def image(data: bytes) -> Image:
    return Image(io.BytesIO(data), len(data), crc64.xz(data))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[OssServer]:
    async with OssServer(tmp_path, Credentials("key", "secret"), bucket="images") as server:
        yield server


@pytest.fixture
async def real(server: OssServer) -> AsyncIterator[OssStore]:
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


@pytest.fixture
def keep(request: pytest.FixtureRequest, store: ObjectStore) -> Callable[[str], None]:
    """Has the store keep an object that is to be deleted."""

    def keep(key: str) -> None:
        if isinstance(store, FakeStore):
            store.kept.add(key)
        else:
            server: OssServer = request.getfixturevalue("server")
            server.faults.add(Fault(Kind.DENY, method="DELETE", key_prefix=key))

    return keep


async def fill(store: ObjectStore, keys: Iterable[str]) -> None:
    """Under each key lies an object."""
    some = iter(keys)
    while batch := list(islice(some, 50)):
        await asyncio.gather(*(store.put(key, image(b"x"), content_type="image/png", event_id="e") for key in batch))


async def all_keys(store: ObjectStore) -> list[str]:
    """The keys of all pages."""
    keys: list[str] = []
    while page := await store.listed(keys[-1] if keys else ""):
        keys += [found.key for found in page]
    return keys


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


async def test_of_many_objects_those_that_are_gone_are_told_whether_or_not_they_were_there(store: ObjectStore) -> None:
    await fill(store, [KEY, "users/other"])
    assert await store.delete_many([KEY, "users/never"]) == {KEY, "users/never"}
    assert await all_keys(store) == ["users/other"]


async def test_nothing_is_asked_for_when_nothing_is_to_be_deleted(store: ObjectStore) -> None:
    assert await store.delete_many([]) == set()


async def test_an_object_that_the_store_keeps_is_not_among_those_that_are_gone(
    store: ObjectStore, keep: Callable[[str], None]
) -> None:
    await fill(store, ["users/a", "users/kept", "users/z"])
    keep("users/kept")
    assert await store.delete_many(["users/a", "users/kept", "users/z"]) == {"users/a", "users/z"}
    assert await all_keys(store) == ["users/kept"]


async def test_a_key_that_is_none_is_that_keys_fault(store: ObjectStore) -> None:
    with pytest.raises(PermanentError):
        await store.delete_many(["users/a", "/no-key"])


@pytest.mark.parametrize("character", EVERY_CHARACTER)
async def test_a_key_with_every_character_of_a_user_is_listed_and_deleted_as_it_is(
    store: ObjectStore, character: str
) -> None:
    key = KEY.replace("test", f"a{character}{character}z")
    await fill(store, [key])
    assert await all_keys(store) == [key]
    assert await store.delete_many([key]) == {key}
    assert await all_keys(store) == []


async def test_a_thousand_objects_with_the_longest_keys_are_deleted_at_once(store: ObjectStore) -> None:
    keys = [f"users/{'u@|:+' * 50}/jobs/{'j' * 120}{number:04}/image-1.png" for number in range(1000)]
    await fill(store, keys)
    assert await store.delete_many(keys) == set(keys)
    assert await all_keys(store) == []


async def test_a_listing_tells_of_each_object_its_size_and_when_it_was_put(store: ObjectStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)  # the service tells whole seconds
    await store.put(KEY, image(b"fox"), content_type="image/png", event_id="e")
    (found,) = await store.listed("")
    assert (found.key, found.size_bytes) == (KEY, 3)
    assert before <= found.modified_at <= datetime.now(UTC)


async def test_a_listing_is_in_the_order_of_bytes_and_has_what_others_put_there(store: ObjectStore) -> None:
    # Of UTF-16 or of a human's alphabet the order would be another one.
    names = [
        "A",
        "Z",
        "_",
        "a",
        "a b",
        "a%20b",
        "a+b",
        "a&<b>\"'",
        "a/b",
        "a//b/",
        "é",
        "日本",
        "\uffee",
        "🦊",
        "a\tb\nc",
    ]
    keys = [f"users/{name}" for name in names]
    await fill(store, [*keys, "usersX", "other/users/x"])
    assert await all_keys(store) == sorted(keys, key=str.encode)


async def test_a_listing_of_more_than_a_page_is_read_page_by_page_from_any_key(store: ObjectStore) -> None:
    keys = [f"users/{number:05}" for number in range(1100)]
    await fill(store, keys)
    pages = [await store.listed(after) for after in ("", keys[999], keys[1099])]
    assert [len(page) for page in pages] == [1000, 100, 0]
    assert [found.key for page in pages for found in page] == keys
    assert (await store.listed("users/00009x"))[0].key == keys[10]
