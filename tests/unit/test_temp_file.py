"""Files appear in TEMP_DIR whole, under names that are theirs alone."""

import io
import os
import re
import stat
from pathlib import Path

import pytest

from producer.temp_file import place
from schemas.environment import PART_PREFIX


class BrokenPipe(io.BytesIO):
    """Gives some bytes, then fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError("the pipe broke")
        return super().read(4)


def test_the_file_is_there_with_its_content_and_extension(tmp_path: Path) -> None:
    path = place(io.BytesIO(b"pixels"), tmp_path, suffix=".png")
    assert path.read_bytes() == b"pixels"
    assert (path.parent, path.suffix) == (tmp_path, ".png")
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_content_twice_makes_two_files(tmp_path: Path) -> None:
    assert place(io.BytesIO(b"pixels"), tmp_path) != place(io.BytesIO(b"pixels"), tmp_path)


def test_its_url_is_percent_encoded_and_has_no_parent_steps(tmp_path: Path) -> None:
    path = place(io.BytesIO(b"pixels"), tmp_path / "a" / ".." / "our images é", suffix=".png")
    assert path.as_uri() == f"file://{tmp_path}/our%20images%20%C3%A9/{path.name}"


def test_a_relative_directory_makes_an_absolute_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place(io.BytesIO(b"pixels"), Path("shared")).as_uri().startswith(f"file://{tmp_path}/shared/")


def test_the_mode_follows_the_umask_so_that_a_worker_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = place(io.BytesIO(b"pixels"), tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_unfinished_file_has_a_name_that_the_cleanup_knows_and_that_begins_with_a_dot(tmp_path: Path) -> None:
    names: list[str] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            names.extend(path.name for path in tmp_path.iterdir())
            return super().read(size)

    place(Watched(b"pixels"), tmp_path, suffix=".png")
    assert names
    assert all(name.startswith(PART_PREFIX) and re.fullmatch(r"\..+\.png", name) for name in names)


@pytest.mark.parametrize("content", [io.BytesIO(), BrokenPipe(b"pixels")], ids=["empty", "broken"])
def test_nothing_is_left_of_content_that_is_empty_or_breaks_off(content: io.BytesIO, tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError)):
        place(content, tmp_path)
    assert not list(tmp_path.iterdir())
