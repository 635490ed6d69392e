"""One suite for the port `ImageSource`: the fake, and the sources by scheme."""

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

import pytest
from fastcrc import crc64

from consumer.adapters.address_guard import AddressGuard
from consumer.adapters.file_source import FileSource
from consumer.adapters.host_turns import HostTurns
from consumer.adapters.http_source import HttpSource
from consumer.adapters.image_source import ImageSources
from consumer.core.errors import TransientError
from consumer.core.ports import ImageSource
from schemas.reasons import Reason
from tests.fakes import FakeSource

MAX_BYTES = 4_000_000
TOUCH_EVERY_S = 0.01


class Place(NamedTuple):
    """A source, how to put an image there, and the URL of one that is not there."""

    source: ImageSource
    place: Callable[[bytes], str]
    gone: str


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Place]:
    guard = AddressGuard((), (ip_network("127.0.0.0/8"),))
    http = HttpSource(guard, HostTurns(64, timeout_s=60), max_bytes=MAX_BYTES)

    def place(data: bytes) -> str:
        (tmp_path / "fox.png").write_bytes(data)
        return f"file://{tmp_path}/fox.png"

    source = ImageSources(
        http,
        FileSource(tmp_path, max_bytes=MAX_BYTES),
        directory=tmp_path,
        max_bytes=MAX_BYTES,
        timeout_s=5,
        touch_every_s=TOUCH_EVERY_S,
    )
    yield Place(source, place, f"file://{tmp_path}/gone.png")
    await http.close()


async def test_a_file_that_was_opened_for_an_event_is_young_to_the_cleanup(files: Place, tmp_path: Path) -> None:
    url, path = files.place(b"fox"), tmp_path / "fox.png"
    before = path.stat().st_ctime_ns
    async with asyncio.timeout(10):
        while path.stat().st_ctime_ns == before:
            async with files.source.open(url):
                pass


async def test_a_file_stays_young_for_as_long_as_it_is_open(files: Place, tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    async with asyncio.timeout(10), files.source.open(files.place(b"fox")):
        for _ in range(3):
            before = path.stat().st_ctime_ns
            while path.stat().st_ctime_ns == before:  # noqa: ASYNC110 a file tells nobody
                await asyncio.sleep(TOUCH_EVERY_S)


@pytest.fixture(params=["fake", "files"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "files":
        found: Place = request.getfixturevalue("files")
        return found
    fake = FakeSource()

    def put(data: bytes) -> str:
        fake.images["file:///fox.png"] = data
        return "file:///fox.png"

    return Place(fake, put, "file:///gone.png")


@pytest.mark.parametrize("size_bytes", [0, 1, 1_048_577, 3_500_000])
async def test_an_image_is_whole_summed_and_can_be_read_more_than_once(place: Place, size_bytes: int) -> None:
    data = (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]
    async with place.source.open(place.place(data)) as image:
        assert (image.size_bytes, image.crc64) == (size_bytes, crc64.xz(data))
        for _ in range(2):
            image.file.seek(0)
            assert image.file.read() == data
    assert image.file.closed


async def test_what_is_not_there_is_gone_and_deserves_two_rungs(place: Place) -> None:
    with pytest.raises(TransientError) as caught:
        async with place.source.open(place.gone):
            raise AssertionError("opened")
    assert (caught.value.reason, caught.value.rungs) == (Reason.SOURCE_GONE, 2)


async def test_a_discarded_file_is_gone_and_may_be_discarded_again(place: Place) -> None:
    url = place.place(b"fox")
    for _ in range(2):
        await place.source.discard(url)
        with pytest.raises(TransientError):
            async with place.source.open(url):
                raise AssertionError("opened")


async def test_what_is_no_file_is_left_where_it_is(place: Place) -> None:
    await place.source.discard("https://cdn.test/fox.png")
    await place.source.discard("data:image/png;base64,AAAA")
