"""One suite for the port `TempDir`: the fake, and a directory."""

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumer.adapters.temp_dir import TempDirectory
from consumer.core.ports import FoundFile, TempDir
from schemas.environment import PART_PREFIX
from tests.fakes import FakeTempDir


class Shelf:
    """Files that are put into a fake."""

    def __init__(self) -> None:
        self.fake = FakeTempDir()
        self.directory: TempDir = self.fake

    def put(self, name: str, size_bytes: int = 3) -> str:
        path = f"/t/{name}"
        self.fake.files[path] = FoundFile(path, size_bytes, datetime.now(UTC), name.startswith(PART_PREFIX))
        return path

    def grow(self, path: str) -> None:
        self.fake.grown.add(path)

    def take(self, path: str) -> None:
        del self.fake.files[path]

    async def found(self) -> list[list[FoundFile]]:
        async with aclosing(self.directory.found()) as batches:
            return [batch async for batch in batches]

    async def files(self) -> list[FoundFile]:
        return [file for batch in await self.found() for file in batch]


class RealShelf(Shelf):
    """Files in a directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory
        self.directory = TempDirectory(directory)

    def put(self, name: str, size_bytes: int = 3) -> str:
        path = self._path / name
        path.write_bytes(b"x" * size_bytes)
        return str(path)

    def grow(self, path: str) -> None:
        with Path(path).open("ab") as file:
            file.write(b"x")

    def take(self, path: str) -> None:
        Path(path).unlink()


@pytest.fixture(params=["fake", "directory"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return Shelf() if request.param == "fake" else RealShelf(tmp_path)


async def test_an_empty_directory_has_no_batch(shelf: Shelf) -> None:
    assert await shelf.found() == []


async def test_files_are_told_with_their_size_their_age_and_whether_they_were_finished(shelf: Shelf) -> None:
    fox, part = shelf.put("fox.png", 7), shelf.put(f"{PART_PREFIX}1", 0)
    files = {file.path: file for file in await shelf.files()}
    assert {path: (file.size_bytes, file.is_part) for path, file in files.items()} == {fox: (7, False), part: (0, True)}
    for file in files.values():
        assert abs(datetime.now(UTC) - file.changed_at) < timedelta(minutes=1)


async def test_a_batch_has_a_thousand_files_at_most(shelf: Shelf) -> None:
    paths = {shelf.put(f"{number}") for number in range(2500)}
    batches = await shelf.found()
    assert [len(batch) for batch in batches] == [1000, 1000, 500]
    assert {file.path for batch in batches for file in batch} == paths


async def test_what_is_removed_is_gone_and_told(shelf: Shelf) -> None:
    one, other = shelf.put("one"), shelf.put("other")
    files = [file for file in await shelf.files() if file.path == one]
    removal = await shelf.directory.remove(files)
    assert (removal.removed, removal.refusals) == (files, [])
    assert [file.path for file in await shelf.files()] == [other]


async def test_what_changed_or_went_since_it_was_found_is_left_and_not_told(shelf: Shelf) -> None:
    grown, gone = shelf.put("grown"), shelf.put("gone")
    files = await shelf.files()
    shelf.grow(grown)
    shelf.take(gone)
    removal = await shelf.directory.remove(files)
    assert (removal.removed, removal.refusals) == ([], [])
    assert [file.path for file in await shelf.files()] == [grown]
