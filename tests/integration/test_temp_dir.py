"""TEMP_DIR belongs to others, some of them hostile: nothing outside is touched, and nothing hangs."""

# ruff: noqa: ASYNC240 directories of this machine

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

import pytest

from consumer.adapters import temp_dir
from consumer.adapters.file_source import FileSource
from consumer.adapters.temp_dir import TempDirectory
from consumer.core.cleanup import Run, Tally
from consumer.core.errors import DependencyError
from consumer.core.ports import FoundFile
from consumer.core.source_file import source_file
from consumer.handlers.clean_temp import CleanTemp
from schemas.environment import PART_PREFIX
from tests.fakes import FakeBacklog, FakeCleanupRecords

NOBODY = 65534
AGE = timedelta(days=1)


@pytest.fixture
def inside() -> Iterator[Path]:
    """A directory that anybody may get at, beside one that nobody must."""
    home = Path(mkdtemp(prefix="test-temp-dir-"))
    home.chmod(0o755)
    (home / "inside").mkdir()
    yield home / "inside"
    subprocess.run(["chmod", "-R", "u+rwx", home], check=True)
    shutil.rmtree(home)


@pytest.fixture
def outside(inside: Path) -> Path:
    outside = inside.parent / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "secret.png").write_bytes(b"secret")
    (outside / "deep" / "secret.png").write_bytes(b"deep secret")
    return outside


@contextmanager
def unchanged(directory: Path) -> Iterator[None]:
    """Whatever happens inside, the directory holds the same files with the same content, and none was even written."""

    def look() -> set[tuple[str, int, int, bytes]]:
        return {
            (str(path), path.lstat().st_ino, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in (directory, *directory.rglob("*"))
        }

    before = look()
    yield
    assert look() == before


@contextmanager
def without_rights() -> Iterator[None]:
    """As somebody who is not root, who may do everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


async def found(directory: TempDirectory) -> dict[str, FoundFile]:
    async with aclosing(directory.found()) as batches:
        return {file.path: file async for batch in batches for file in batch}


def old(path: Path, content: bytes = b"old") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def hostile(inside: Path, outside: Path) -> set[str]:
    """Everything that a stranger may put there; the paths of the regular files."""
    (inside / "etc").symlink_to("/etc")
    (inside / "hosts").symlink_to("/etc/hosts")
    (inside / "way-out").symlink_to(outside)
    (inside / "circle").symlink_to(inside)
    (inside / "dangling").symlink_to(inside / "nothing")
    (inside / "hard-link.png").hardlink_to(outside / "secret.png")
    os.mkfifo(inside / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(inside / "socket.png"))
    if not os.geteuid():
        os.mknod(inside / "null.png", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (inside / "empty").mkdir()
    (inside / ".." / "inside" / "nested" / "deep").mkdir(parents=True)
    os.mkfifo(inside / "nested" / "pipe.png")
    (inside / "nested" / "way-out").symlink_to(outside / "deep")
    names = [
        *(b"new\nline.png", b"no-utf-8-\xff.png", b"x" * 255, "ü🦊 %41?#.png".encode(), b" ", b"-rf", b"\x1b[2J"),
        *(b"nested/one.png", b"nested/deep/two.png", b"empty.png"),
    ]
    paths = [os.fsencode(inside) + b"/" + name for name in names]
    for path in paths:
        Path(os.fsdecode(path)).write_bytes(b"")
    return {*map(os.fsdecode, paths), str(inside / "hard-link.png")}


async def test_of_a_hostile_directory_only_regular_files_are_told(inside: Path, outside: Path) -> None:
    regular = hostile(inside, outside)
    directory = TempDirectory(inside)
    with unchanged(outside):
        assert set(await found(directory)) == regular


async def test_of_a_hostile_directory_only_regular_files_go_and_nothing_outside_is_touched(
    inside: Path, outside: Path
) -> None:
    regular = hostile(inside, outside)
    others = {str(path) for path in inside.rglob("*")} - regular
    directory = TempDirectory(inside)
    with unchanged(outside), unchanged(Path("/etc/apt") if Path("/etc/apt").is_dir() else outside):
        hosts = Path("/etc/hosts").read_bytes()
        removal = await directory.remove(list((await found(directory)).values()))
        assert Path("/etc/hosts").read_bytes() == hosts
    assert ({file.path for file in removal.removed}, removal.refusals) == (regular, [])
    assert {str(path) for path in inside.rglob("*")} == others


async def test_the_task_on_a_hostile_directory_counts_first_what_it_removes_then(inside: Path, outside: Path) -> None:
    regular = hostile(inside, outside)
    growing = old(inside / "growing.png")
    later = datetime.now(UTC) + 2 * AGE
    backlog, records = FakeBacklog(), FakeCleanupRecords()
    await records.leave_note("temp", (later - timedelta(hours=1)).isoformat())
    task = CleanTemp(TempDirectory(inside), records, backlog, AGE, apart=timedelta(minutes=5))
    with unchanged(outside), growing.open("ab") as file:
        rehearsed, real = Tally(), Tally()
        await task(Run(later, is_rehearsal=True, is_over=lambda: False), rehearsed)
        assert growing.exists()
        await task(Run(later, is_rehearsal=False, is_over=lambda: False), real)
        file.write(b"more")  # into nowhere, and no error
    assert real == rehearsed
    assert (real.count, real.size_bytes, real.errors) == (len(regular) + 1, len("secret") + len("old"), [])


async def test_a_file_that_is_being_written_is_young(inside: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    with (inside / "growing.png").open("wb") as file:
        file.write(b"half")
        file.flush()
        os.utime(file.fileno(), (0, 0))  # a time that anybody may set hides nothing
        (told,) = (await found(TempDirectory(inside))).values()
    assert told.changed_at >= before
    assert told.size_bytes == 4


async def test_a_time_that_no_calendar_has_is_no_trouble(inside: Path) -> None:
    os.utime(old(inside / "future.png"), ns=(0, 4 * 10**18))
    (told,) = (await found(TempDirectory(inside))).values()
    assert told.changed_at.year > 2090
    assert temp_dir._time(2**62).year > 2090
    assert temp_dir._time(2**80) == datetime.max.replace(tzinfo=UTC)


async def test_what_may_not_be_read_is_removed_all_the_same_or_left_and_told(inside: Path) -> None:
    old(inside / "unreadable.png").chmod(0o000)
    old(inside / "closed" / "file.png")
    old(inside / "kept" / "file.png")
    (inside / "closed").chmod(0o000)
    (inside / "kept").chmod(0o555)
    inside.chmod(0o777)
    directory = TempDirectory(inside)
    with without_rights():
        files = await found(directory)
        assert set(files) == {str(inside / "unreadable.png"), str(inside / "kept" / "file.png")}
        removal = await directory.remove(list(files.values()))
    assert [file.path for file in removal.removed] == [str(inside / "unreadable.png")]
    assert removal.refusals == [f"{inside}/kept/file.png: Permission denied"]
    (inside / "closed").chmod(0o755)
    assert (inside / "closed" / "file.png").exists()
    assert (inside / "kept" / "file.png").exists()


@pytest.mark.parametrize("how", ["missing", "a file", "unreadable"])
async def test_a_directory_that_cannot_be_read_is_told_with_what_to_do(inside: Path, how: str) -> None:
    match how:
        case "missing":
            inside.rmdir()
        case "a file":
            inside.rmdir()
            inside.write_bytes(b"")
        case _:
            inside.chmod(0o000)
    with without_rights(), pytest.raises(DependencyError) as caught:
        await found(TempDirectory(inside))
    assert caught.value.dependency == "temp_dir"
    assert caught.value.detail.startswith(f"TEMP_DIR {inside} cannot be opened: ")
    assert "`image-uploads check`" in caught.value.detail


def change(path: Path, outside: Path) -> None:
    """The file is no longer the one that was found, in the way that its name says."""
    if path.name not in ("grown", "rewritten", "touched"):
        path.unlink()
    match path.name:
        case "grown":
            os.truncate(path, 99)
        case "rewritten" | "replaced":
            path.write_bytes(b"new")
        case "touched":
            FileSource(path.parent, max_bytes=9).take(path.as_uri()).close()
        case "link":
            path.symlink_to(outside / "secret.png")
        case "hard link":
            path.hardlink_to(outside / "secret.png")
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)


async def test_a_file_that_changed_since_it_was_found_stays(inside: Path, outside: Path) -> None:
    changed = {"grown", "rewritten", "replaced", "touched", "link", "hard link", "directory", "pipe"}
    for name in (*changed, "gone"):
        os.utime(old(inside / name), (0, 0))
    directory = TempDirectory(inside)
    files = await found(directory)
    await asyncio.sleep(0.02)  # a file system's clock may tick a hundred times a second
    for name in (*changed, "gone"):
        change(inside / name, outside)
    with unchanged(outside):
        removal = await directory.remove(list(files.values()))
    assert (removal.removed, removal.refusals) == ([], [])
    assert {path.name for path in inside.iterdir()} == changed


@pytest.mark.parametrize("levels", [1, 2])
async def test_a_directory_that_became_a_link_leads_nowhere(inside: Path, outside: Path, levels: int) -> None:
    old(inside / "one" / "deep" / "secret.png", b"deep secret")
    old(inside / "one" / "secret.png", b"secret")
    directory = TempDirectory(inside)
    files = list((await found(directory)).values())
    moved = inside / ("one" if levels == 1 else "one/deep")
    moved.rename(inside.parent / "moved")
    moved.symlink_to(outside if levels == 1 else outside / "deep")
    with unchanged(outside), unchanged(inside.parent / "moved"):
        removal = await directory.remove(files)
    assert len(removal.removed) == levels - 1
    assert len(removal.refusals) == 3 - levels


async def test_a_directory_that_becomes_a_link_while_it_is_walked_is_not_followed(
    inside: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(inside / "one" / "fox.png")
    really = temp_dir._inner_entries

    def swapped(parent: int, name: str, path: str, device: int, levels: int) -> Iterator[FoundFile | None]:
        (inside / "one").rename(inside.parent / "moved")
        (inside / "one").symlink_to(outside)
        yield from really(parent, name, path, device, levels)

    monkeypatch.setattr(temp_dir, "_inner_entries", swapped)
    assert await found(TempDirectory(inside)) == {}


async def test_what_is_nested_without_end_is_left_alone_below_the_thirty_second_level(inside: Path) -> None:
    shallow = old(inside.joinpath(*["d"] * 32, "file"))
    old(inside.joinpath(*["d"] * 33, "file"))
    assert set(await found(TempDirectory(inside))) == {str(shallow)}


async def test_another_file_system_inside_is_not_walked(inside: Path) -> None:
    (inside / "mounted").mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "none", inside / "mounted"], capture_output=True, check=False)  # noqa: ASYNC221
    if mounting.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        old(inside / "mounted" / "file")
        assert await found(TempDirectory(inside)) == {}
    finally:
        subprocess.run(["umount", inside / "mounted"], check=True)  # noqa: ASYNC221


async def test_files_that_come_and_go_meanwhile_are_no_trouble(inside: Path) -> None:
    for number in range(3000):
        old(inside / f"{number % 7}" / f"{number}")
    directory = TempDirectory(inside)
    seen: list[str] = []
    async with aclosing(directory.found()) as batches:
        async for batch in batches:
            seen += [file.path for file in batch]
            for name in os.listdir(inside):  # noqa: PTH208 names are all that is wanted
                shutil.rmtree(inside / name)
    assert 0 < len(seen) < 3000


async def test_ten_thousand_files_go_in_batches_within_the_memory_of_one(inside: Path) -> None:
    for number in range(10_000):
        os.close(os.open(inside / f"{number:0200}", os.O_CREAT))
    directory, removed, sizes = TempDirectory(inside), 0, set()
    tracemalloc.start()
    try:
        async with aclosing(directory.found()) as batches:
            async for batch in batches:
                sizes.add(len(batch))
                removed += len((await directory.remove(batch)).removed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert removed == 10_000
    assert max(sizes) == 1000
    assert not any(inside.iterdir())
    assert peak < 4_000_000


async def test_names_of_ours_that_were_never_finished_are_known(inside: Path) -> None:
    for name in (f"{PART_PREFIX}1.png", "fox.png", ".hidden", f"x{PART_PREFIX}1"):
        old(inside / name)
        old(inside / f"{PART_PREFIX}directory" / name)
    parts = {path for path, file in (await found(TempDirectory(inside))).items() if file.is_part}
    assert parts == {f"{inside}/{PART_PREFIX}1.png", f"{inside}/{PART_PREFIX}directory/{PART_PREFIX}1.png"}


async def test_a_path_is_spelt_as_the_events_url_names_it(inside: Path) -> None:
    for name in ("fox one.png", "ü🦊.png", "100%.png", "new\nline"):
        old(inside / "deep" / name)
    paths = set(await found(TempDirectory(inside)))
    assert paths == {source_file(Path(path).as_uri()) for path in paths}
    assert len(paths) == 4


async def test_a_file_system_that_hangs_keeps_one_thread_however_often_it_is_asked(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = FoundFile(str(old(inside / "file")), 3, datetime.now(UTC), is_part=False)
    answers, really = threading.Event(), os.scandir

    def hanging(directory: int) -> "os._ScandirIterator[str]":
        answers.wait()
        return really(directory)

    monkeypatch.setattr(os, "scandir", hanging)
    directory = TempDirectory(inside, step_timeout_s=0.05)
    before = threading.active_count()
    try:
        for _ in range(20):
            with pytest.raises(DependencyError, match=r"TEMP_DIR .*inside (did|does) not answer"):
                await found(directory)
            with pytest.raises(DependencyError, match="does not answer"):
                await directory.remove([file])
        assert threading.active_count() == before + 1
    finally:
        answers.set()
    await asyncio.to_thread(_joined, "temp_dir")
    assert set(await found(TempDirectory(inside))) == set(await found(directory)) == {file.path}


def _joined(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(10)


async def test_no_descriptor_is_left_open(inside: Path, outside: Path) -> None:
    hostile(inside, outside)
    for number in range(2000):
        old(inside / "nested" / "deep" / f"{number}")
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("only Linux lists a process's descriptors as files")
    before = len(list(descriptors.iterdir()))
    directory = TempDirectory(inside)
    await directory.remove(list((await found(directory)).values())[::2])
    async with aclosing(directory.found()) as batches:
        async for _ in batches:
            break
    assert len(list(descriptors.iterdir())) == before
