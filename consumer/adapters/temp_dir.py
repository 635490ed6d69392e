"""TEMP_DIR as the cleanup sees it, and the way into it that no link can lead out of."""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any, Final, TypeVar

import structlog

from consumer.core.cleanup import BATCH
from consumer.core.errors import DependencyError
from consumer.core.ports import FoundFile, Removal
from consumer.core.redact import redact
from schemas.environment import PART_PREFIX
from schemas.reasons import Reason

_INNER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_DEEPEST: Final = 32  # each level holds two descriptors while what is below it is read
_STEP_TIMEOUT_S: Final = 30.0  # a thousand files of a slow network file system, several times over

_log = structlog.get_logger()
Step = TypeVar("Step")


@contextmanager
def parent_of(directory: Path, parts: Sequence[str]) -> Iterator[int]:
    """A descriptor of what holds the last of the parts, which lead there from the directory through no link.

    Raises:
        DependencyError: the directory itself cannot be opened.
        OSError: there is no such way.
    """
    parent = _opened(directory)
    try:
        for part in parts[:-1]:
            # One component at a time, so that no link can lead out of the directory between a check and its use.
            inner = os.open(part, _INNER, dir_fd=parent)
            os.close(parent)
            parent = inner
        yield parent
    finally:
        with suppress(OSError):
            os.close(parent)


def _opened(directory: Path) -> int:
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _away(f"{directory} cannot be opened: {error.strerror}; `image-uploads check` tells the mend") from error


def _away(detail: str) -> DependencyError:
    return DependencyError("temp_dir", Reason.SOURCE_UNAVAILABLE, f"TEMP_DIR {detail}")


class TempDirectory:
    """See `TempDir`; what the file system does not answer keeps one thread waiting, and never another one."""

    def __init__(self, directory: Path, *, step_timeout_s: float = _STEP_TIMEOUT_S) -> None:
        self._directory = directory
        self._step_timeout_s = step_timeout_s
        self._step: Future[Any] | None = None

    async def found(self) -> AsyncGenerator[list[FoundFile]]:
        """Every regular file in it: see `TempDir.found`. A file more than 32 directories deep is not looked for."""
        entries = _entries(self._directory)
        try:
            while batch := await self._apart(lambda: list(islice(entries, BATCH))):
                if files := [file for file in batch if file is not None]:
                    yield files
        finally:
            if not self._is_stuck():  # else whoever collects it when the step has ended closes what it had open
                entries.close()

    async def remove(self, files: Sequence[FoundFile]) -> Removal:
        """The files are gone, but for those that changed or may not be removed: see `TempDir.remove`."""
        return await self._apart(lambda: self._removed(files))

    def _removed(self, files: Sequence[FoundFile]) -> Removal:
        removal = Removal([], [])
        for file in files:
            try:
                if self._is_removed(file):
                    removal.removed.append(file)
            except FileNotFoundError:
                pass  # the worker that stored it was quicker
            except OSError as error:
                removal.refusals.append(redact(f"{file.path}: {error.strerror}"))
        return removal

    def _is_removed(self, file: FoundFile) -> bool:
        parts = PurePosixPath(file.path).relative_to(self._directory).parts
        with parent_of(self._directory, parts) as parent:
            status = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            # Each change sets the time of the last one, so whatever else has the name by now is told apart.
            if not stat.S_ISREG(status.st_mode) or _told(file.path, status) != file:
                return False
            os.unlink(parts[-1], dir_fd=parent)
            return True

    async def _apart(self, step: Callable[[], Step]) -> Step:
        if self._is_stuck():
            raise _away(f"{self._directory} does not answer: what was asked of it before has not ended yet")
        future: Future[Step] = Future()
        self._step = future

        def run() -> None:
            future.set_running_or_notify_cancel()
            try:
                future.set_result(step())
            except BaseException as error:  # noqa: BLE001 it is raised where the step is awaited
                future.set_exception(error)

        # A thread of its own, and no other's to wait for: the program may end while the file system hangs.
        Thread(target=run, name="temp_dir", daemon=True).start()
        try:
            async with asyncio.timeout(self._step_timeout_s):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            detail = f"{self._directory} did not answer within {self._step_timeout_s:g} s: is its server up?"
            raise _away(detail) from error

    def _is_stuck(self) -> bool:
        return self._step is not None and not self._step.done()


def _entries(directory: Path) -> Generator[FoundFile | None]:
    """The directory's regular files, and nothing for each of its other entries, so that batches are of entries."""
    top = _opened(directory)
    try:
        yield from _entries_of(top, str(directory), os.fstat(top).st_dev, _DEEPEST)
    except OSError as error:
        raise _away(f"{directory} cannot be read: {error.strerror}; `image-uploads check` tells the mend") from error
    finally:
        os.close(top)


def _entries_of(directory: int, path: str, device: int, levels: int) -> Iterator[FoundFile | None]:
    with os.scandir(directory) as entries:
        for entry in entries:
            file, is_inner = None, False
            with suppress(OSError):  # it has gone meanwhile
                status = entry.stat(follow_symlinks=False)
                is_inner = stat.S_ISDIR(status.st_mode) and status.st_dev == device and levels > 0
                file = _told(f"{path}/{entry.name}", status) if stat.S_ISREG(status.st_mode) else None
            yield file
            if is_inner:
                yield from _inner_entries(directory, entry.name, f"{path}/{entry.name}", device, levels - 1)


def _inner_entries(parent: int, name: str, path: str, device: int, levels: int) -> Iterator[FoundFile | None]:
    try:
        directory = os.open(name, _INNER, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("a directory inside TEMP_DIR is not cleaned", path=redact(path), error=error.strerror)
        return
    try:
        if os.fstat(directory).st_dev == device:
            yield from _entries_of(directory, path, device, levels)
    except OSError as error:
        _log.warning("a directory inside TEMP_DIR is not cleaned", path=redact(path), error=error.strerror)
    finally:
        os.close(directory)


def _told(path: str, status: os.stat_result) -> FoundFile:
    return FoundFile(
        path=path,
        size_bytes=status.st_size,
        changed_at=_time(max(status.st_mtime_ns, status.st_ctime_ns)),
        is_part=path.rpartition("/")[2].startswith(PART_PREFIX),
    )


def _time(nanoseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    except (OverflowError, ValueError, OSError):  # anybody may set a file's time to the year 30000
        return datetime.max.replace(tzinfo=UTC)
