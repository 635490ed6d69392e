"""Images that generators leave in the directory they share with us."""

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, TypeVar

import structlog

from consumer.adapters.temp_dir import parent_of
from consumer.core.errors import PermanentError, TransientError, UploadError
from consumer.core.redact import redact
from consumer.core.source_file import source_file
from schemas.reasons import Reason

_RUNGS_OF_GONE: Final = 2
_FORBIDDEN_ERRNOS: Final = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG, errno.EINVAL)

_log = structlog.get_logger()
Found = TypeVar("Found")


class FileSource:
    """Opens and deletes files inside TEMP_DIR, never through a symbolic link and never outside."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def open(self, url: str) -> BinaryIO:
        """The regular file that the URL names; blocks for as long as the file system takes.

        Raises:
            UploadError: with the blame.
        """
        file = self._within(url, _open)
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size <= self._max_bytes:
            return file
        file.close()
        if stat.S_ISREG(status.st_mode):
            detail = f"{status.st_size} bytes are more than {self._max_bytes} (MAX_IMAGE_BYTES)"
            raise PermanentError(Reason.TOO_LARGE, detail)
        raise PermanentError(Reason.SOURCE_FORBIDDEN, "the path is no regular file")

    def take(self, url: str) -> BinaryIO:
        """The same for an event that is in work: the file counts as changed just now, as far as we have the right.

        Raises:
            UploadError: as `open`.
        """
        file = self.open(url)
        touch(file.fileno())
        return file

    def discard(self, url: str) -> None:
        """The file is gone; one that cannot be deleted is left to the cleanup, and logged."""
        try:
            self.delete(url)
        except UploadError as error:
            _log.warning("a temp file was not deleted", error=error.detail)

    def delete(self, url: str) -> None:
        """The file is gone, whether or not it was there.

        Raises:
            UploadError: it is not, with the blame.
        """
        try:
            self._within(url, lambda name, parent: os.unlink(name, dir_fd=parent))
        except TransientError as error:
            if error.reason is not Reason.SOURCE_GONE:
                raise

    def _within(self, url: str, use: Callable[[str, int], Found]) -> Found:
        parts = self._parts(url)
        try:
            with parent_of(self._directory, parts) as parent:
                return use(parts[-1], parent)
        except FileNotFoundError as error:
            detail = "the file is not there"
            raise TransientError(Reason.SOURCE_GONE, detail, rungs=_RUNGS_OF_GONE) from error
        except OSError as error:
            if error.errno in _FORBIDDEN_ERRNOS:
                detail = f"the path leads through a link, or is no file: {error.strerror}"
                raise PermanentError(Reason.SOURCE_FORBIDDEN, detail) from error
            if isinstance(error, PermissionError):
                detail = f"the file may not be read: {error.strerror}"
                raise TransientError(Reason.SOURCE_FORBIDDEN, detail, rungs=_RUNGS_OF_GONE) from error
            raise TransientError(Reason.SOURCE_UNAVAILABLE, redact(f"the file: {error.strerror}")) from error

    def _parts(self, url: str) -> tuple[str, ...]:
        named = source_file(url)
        if named is None:
            raise PermanentError(Reason.SOURCE_FORBIDDEN, "the URL names no path: it must be file:///… in UTF-8")
        path = PurePosixPath(named)
        if not path.is_relative_to(self._directory) or ".." in path.parts:
            raise PermanentError(Reason.SOURCE_FORBIDDEN, f"the path is not inside TEMP_DIR {self._directory}")
        parts = path.relative_to(self._directory).parts
        if not parts:
            raise PermanentError(Reason.SOURCE_FORBIDDEN, "the path is TEMP_DIR itself")
        return parts


def touch(descriptor: int) -> None:
    """The file counts as changed just now, as far as we have the right."""
    # Else the file of an event that is tried again and again would become old, and the cleanup would take it away
    # from under it. The time of its last byte stays, for whoever traces it; where only its owner may do that, it goes.
    written_ns = os.fstat(descriptor).st_mtime_ns
    try:
        os.utime(descriptor, ns=(time.time_ns(), written_ns))
    except OSError:
        with suppress(OSError):
            os.utime(descriptor)


def _open(name: str, parent: int) -> BinaryIO:
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    try:
        return os.fdopen(descriptor, "rb")
    except OSError:  # a directory can be opened, and is no file all the same
        os.close(descriptor)
        raise
