"""The sandbox's OSS server lists like a sorted list of keys, page by page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.oss.address import Address, check_key
from sandbox.oss.errors import OssError
from sandbox.oss.store import Store, behind

keys = st.text(st.sampled_from("ab/ %+.\x00\n\x7fé\U0010ffff"), min_size=1, max_size=8)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def put(store: Store, key: str, content: bytes = b"x") -> None:
    with store.receive() as incoming:
        incoming.write(content)
        store.commit(key, incoming, {})


def expected(stored: set[str], prefix: str, delimiter: str, after: str) -> list[str]:
    """What a listing holds, by reading through all keys."""
    entries: dict[str, None] = {}
    for key in sorted(stored):
        if not key.startswith(prefix) or key <= after:
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        entries[key if cut < 0 else key[: cut + len(delimiter)]] = None
    return list(entries)


def listed(store: Store, prefix: str, delimiter: str, after: str, limit: int) -> list[str]:
    """What all pages hold together."""
    entries: list[str] = []
    position: bytes | None = behind(after.encode()) if after else b""
    while position is not None:
        page = store.page(prefix, delimiter, position, limit)
        found = [summary.key for summary in page.objects] + page.prefixes
        assert 1 <= len(found) <= limit or page.next_position is None
        entries += sorted(found)
        position = page.next_position
    return entries


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the test empties it itself
@given(
    stored=st.sets(keys, max_size=20),
    prefix=st.one_of(st.just(""), keys),
    delimiter=st.sampled_from(["", "/", "a", "//", "é"]),
    after=st.one_of(st.just(""), keys),
    limit=st.integers(1, 5),
)
def test_every_listing_is_that_of_a_sorted_list(
    store: Store, *, stored: set[str], prefix: str, delimiter: str, after: str, limit: int
) -> None:
    store._index.execute("DELETE FROM objects")
    for key in stored:
        store._index.execute("INSERT INTO objects VALUES (?, '', 0, '', '0', 0, '{}')", (key.encode(),))

    assert listed(store, prefix, delimiter, after, limit) == expected(stored, prefix, delimiter, after)


def test_an_overwritten_object_leaves_no_file_behind(store: Store, tmp_path: Path) -> None:
    put(store, "key", b"one")
    reader = store.open(found := store.find("key") or pytest.fail("not stored"))
    put(store, "key", b"two")

    with reader:
        assert reader.read() == b"one"
    assert found.size_bytes == 3
    assert [file.read_bytes() for file in (tmp_path / "content").iterdir()] == [b"two"]


def test_content_that_was_not_committed_is_gone(store: Store, tmp_path: Path) -> None:
    with store.receive() as incoming:
        incoming.write(b"half")

    assert list((tmp_path / "incoming").iterdir()) == []


def test_what_a_killed_server_was_receiving_is_gone(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "half").write_bytes(b"half")
    Store(tmp_path).close()

    assert list((tmp_path / "incoming").iterdir()) == []


def test_deleting_what_is_not_there_succeeds(store: Store, tmp_path: Path) -> None:
    put(store, "key")
    store.delete(["key", "other"])

    assert store.find("key") is None
    assert list((tmp_path / "content").iterdir()) == []


@pytest.mark.parametrize(
    ("host", "target", "bucket", "key"),
    [
        ("127.0.0.1:9000", "/images/a%2Fb%2520%0A?x=1", "images", "a/b%20\n"),
        ("127.0.0.1", "/images//a/../b", "images", "/a/../b"),
        ("[::1]:9000", "/images/a+b", "images", "a+b"),
        ("localhost:9000", "/images", "images", ""),
        ("images.oss.example.com:80", "/a//b", "images", "a//b"),
        ("images.oss.example.com", "/", "images", ""),
    ],
)
def test_an_address_is_read_from_the_raw_path(host: str, target: str, bucket: str, key: str) -> None:
    address = Address.of(host, target)

    assert (address.bucket, address.key) == (bucket, key)


@pytest.mark.parametrize("key", ["", "/a", "\\a", "a" * 1024, "é" * 512, "a\udcff"])
def test_a_bad_name_is_refused(key: str) -> None:
    with pytest.raises(OssError) as refusal:
        check_key(key)

    assert refusal.value.code == "InvalidObjectName"


def test_the_longest_name_is_taken() -> None:
    check_key("a" * 1023)
