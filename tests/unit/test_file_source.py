import gc
import os
from contextlib import suppress
from pathlib import Path

import pytest

from consumer.adapters.file_source import FileSource
from consumer.core.errors import DependencyError, PermanentError, TransientError, UploadError
from schemas.reasons import Reason

DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def temp_dir(tmp_path: Path) -> Path:
    (tmp_path / "outside.png").write_bytes(b"secret")
    inside = tmp_path / "shared"
    (inside / "deep" / "er").mkdir(parents=True)
    (inside / "fox one.png").write_bytes(b"fox")
    (inside / "deep" / "er" / "cat.png").write_bytes(b"cat")
    (inside / "large.png").write_bytes(b"x" * 101)
    (inside / "link.png").symlink_to(tmp_path / "outside.png")
    (inside / "way-out").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe.png")
    return inside


def verdict(temp_dir: Path, url: str) -> UploadError:
    with pytest.raises(UploadError) as caught:
        FileSource(temp_dir, max_bytes=100).open(url)
    return caught.value


@pytest.mark.parametrize(("path", "data"), [("fox%20one.png", b"fox"), ("deep/er/cat.png", b"cat")])
@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://", "file:", "file:///", "file://localhost//"])
def test_a_file_inside_is_read_and_discarded(temp_dir: Path, path: str, data: bytes, start: str) -> None:
    source, url = FileSource(temp_dir, max_bytes=100), f"{start}{temp_dir}//./{path}"
    with source.open(url) as file:
        assert file.read() == data
    source.discard(url)
    assert verdict(temp_dir, url).reason is Reason.SOURCE_GONE
    source.discard(url)


@pytest.mark.parametrize(
    "path",
    [
        "link.png",
        "way-out/outside.png",
        "../outside.png",
        "deep/../../outside.png",
        "%2e%2e/outside.png",
        "pipe.png",
        "deep",
        "",
        "fox%20one.png/x",
        "x%00.png",
        "x" * 300,
    ],
)
def test_nothing_but_a_regular_file_inside_is_read_or_deleted(temp_dir: Path, path: str) -> None:
    error = verdict(temp_dir, f"file://{temp_dir}/{path}")
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.SOURCE_FORBIDDEN
    FileSource(temp_dir, max_bytes=100).discard(f"file://{temp_dir}/way-out/outside.png")
    FileSource(temp_dir, max_bytes=100).discard(f"file://{temp_dir}/../outside.png")
    assert (temp_dir.parent / "outside.png").read_bytes() == b"secret"


def test_a_path_elsewhere_is_refused(temp_dir: Path) -> None:
    assert verdict(temp_dir, "file:///etc/passwd").reason is Reason.SOURCE_FORBIDDEN


def test_a_file_that_is_taken_for_an_event_is_young_again_and_still_tells_when_it_was_written(temp_dir: Path) -> None:
    path = temp_dir / "deep" / "er" / "cat.png"
    os.utime(path, ns=(0, 10**9))
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:
        with FileSource(temp_dir, max_bytes=100).take(path.as_uri()) as file:
            assert file.read() == b"cat"
    assert path.stat().st_mtime_ns == 10**9


def test_a_file_that_is_only_looked_at_stays_as_it_is(temp_dir: Path) -> None:
    path = temp_dir / "deep" / "er" / "cat.png"
    before = path.stat()
    FileSource(temp_dir, max_bytes=100).open(path.as_uri()).close()
    assert path.stat() == before


@pytest.mark.parametrize("rights", ["only its owner's", "nobody's"])
def test_a_file_that_may_be_read_and_not_touched_is_taken_all_the_same(
    temp_dir: Path, monkeypatch: pytest.MonkeyPatch, rights: str
) -> None:
    touched: list[object] = []

    def utime(descriptor: int, **times: object) -> None:
        touched.append(times)
        if times or rights == "nobody's":
            raise PermissionError

    monkeypatch.setattr(os, "utime", utime)
    with FileSource(temp_dir, max_bytes=100).take((temp_dir / "fox one.png").as_uri()) as file:
        assert file.read() == b"fox"
    assert len(touched) == 2


def test_a_name_that_is_no_utf_8_is_refused_since_no_row_could_tell_of_it(temp_dir: Path) -> None:
    path = temp_dir / os.fsdecode(b"\xff.png")
    path.write_bytes(b"fox")
    error = verdict(temp_dir, path.as_uri())
    assert isinstance(error, PermanentError)
    assert error.detail == "the URL names no path: it must be file:///… in UTF-8"
    FileSource(temp_dir, max_bytes=100).discard(path.as_uri())
    assert path.exists()


def test_a_missing_file_gets_two_rungs_and_a_large_one_none(temp_dir: Path) -> None:
    gone = verdict(temp_dir, f"file://{temp_dir}/gone.png")
    assert isinstance(gone, TransientError)
    assert (gone.reason, gone.rungs) == (Reason.SOURCE_GONE, 2)
    assert verdict(temp_dir, f"file://{temp_dir}/large.png").reason is Reason.TOO_LARGE


def test_a_directory_that_is_away_is_a_neighbours_fault(temp_dir: Path) -> None:
    error = verdict(temp_dir / "unmounted", f"file://{temp_dir}/unmounted/fox.png")
    assert isinstance(error, DependencyError)
    assert error.dependency == "temp_dir"


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="only Linux lists a process's descriptors as files")
@pytest.mark.parametrize(
    "path", ["link.png", "pipe.png", "deep", "gone.png", "large.png", "way-out/x", "deep/er/cat.png"]
)
def test_no_file_descriptor_is_left_open(temp_dir: Path, path: str) -> None:
    gc.collect()
    before = set(DESCRIPTORS.iterdir())
    with suppress(UploadError):
        FileSource(temp_dir, max_bytes=100).open(f"file://{temp_dir}/{path}").close()
    FileSource(temp_dir, max_bytes=100).discard(f"file://{temp_dir}/{path}")
    assert set(DESCRIPTORS.iterdir()) == before
