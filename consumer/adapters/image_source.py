"""Images by scheme: fetched whole, within the byte limit, and summed on the way."""

import asyncio
import base64
import binascii
import io
import os
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, cast
from urllib.parse import unquote_to_bytes

from fastcrc import crc64

from consumer.adapters.file_source import FileSource, touch
from consumer.adapters.http_source import HttpSource
from consumer.core.errors import DependencyError, PermanentError, TransientError
from consumer.core.ports import Image
from schemas.environment import PART_PREFIX
from schemas.reasons import Reason

_IN_MEMORY_BYTES: Final = 1024 * 1024  # most images; times the prefetch of 64 it is what a worker may well hold
_CHUNK_BYTES: Final = 1024 * 1024
_DATA_URL: Final = re.compile(r"data:[^,]*;base64,(?P<data>.*)", re.IGNORECASE | re.DOTALL)


class ImageSources:
    """See `ImageSource`."""

    def __init__(
        self,
        http: HttpSource,
        files: FileSource,
        *,
        directory: Path,
        max_bytes: int,
        timeout_s: float,
        touch_every_s: float = 60,
    ) -> None:
        self._http = http
        self._files = files
        self._directory = directory
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._touch_every_s = touch_every_s

    @asynccontextmanager
    async def open(self, url: str) -> AsyncGenerator[Image]:
        """The whole image: see `ImageSource.open`."""
        match url.partition(":")[0].lower():
            case "data":
                data = self._decoded(url)
                yield Image(io.BytesIO(data), len(data), crc64.xz(data))
            case "file":
                file, image = await asyncio.to_thread(self._summed, url)
                with file:
                    async with self._kept_young(file):
                        yield image
            case _:
                # A large image waits in a file that has no name, or loses it at once; the cleanup knows what a crash
                # between the two leaves behind.
                spool = SpooledTemporaryFile(  # noqa: SIM115 closing may fail
                    _IN_MEMORY_BYTES, prefix=PART_PREFIX, dir=str(self._directory)
                )
                try:
                    yield await self._spooled(url, cast("BinaryIO", spool))
                finally:
                    with suppress(OSError):  # what TEMP_DIR did not take is tried once more on closing
                        spool.close()

    async def discard(self, url: str) -> None:
        """A `file:` URL's file is gone: see `ImageSource.discard`."""
        if url[:5].lower() == "file:":
            await asyncio.to_thread(self._files.discard, url)

    @asynccontextmanager
    async def _kept_young(self, file: BinaryIO) -> AsyncGenerator[None]:
        """However long a try takes, its file is not taken for an abandoned one meanwhile."""
        touching = asyncio.create_task(self._touch_now_and_then(file))
        try:
            yield
        finally:
            touching.cancel()

    async def _touch_now_and_then(self, file: BinaryIO) -> None:
        while True:
            await asyncio.sleep(self._touch_every_s)
            await asyncio.to_thread(_touch_and_close, os.dup(file.fileno()))  # its own: it may outlive ours

    async def _spooled(self, url: str, spool: BinaryIO) -> Image:
        size_bytes, crc = 0, 0
        try:
            async with asyncio.timeout(self._timeout_s), aclosing(self._http.chunks(url)) as chunks:
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    self._check_size(size_bytes)
                    crc = crc64.xz(chunk, crc)
                    self._write(spool, chunk)
        except TimeoutError as error:
            detail = f"the image did not come within {self._timeout_s:g} s (SOURCE_TIMEOUT_S)"
            raise TransientError(Reason.SOURCE_UNAVAILABLE, detail) from error
        return Image(spool, size_bytes, crc)

    def _write(self, spool: BinaryIO, chunk: bytes) -> None:
        try:
            spool.write(chunk)
            spool.flush()  # or whoever reads it next would be told that there is no room
        except OSError as error:
            detail = f"TEMP_DIR {self._directory} takes no file: {error.strerror}"
            raise DependencyError("temp_dir", Reason.SOURCE_UNAVAILABLE, detail) from error

    def _summed(self, url: str) -> tuple[BinaryIO, Image]:
        file = self._files.take(url)
        size_bytes, crc = 0, 0
        try:
            while chunk := file.read(_CHUNK_BYTES):
                size_bytes += len(chunk)
                crc = crc64.xz(chunk, crc)
        except OSError as error:
            file.close()
            detail = f"the file could not be read: {error.strerror}"
            raise TransientError(Reason.SOURCE_UNAVAILABLE, detail) from error
        return file, Image(file, size_bytes, crc)

    def _decoded(self, url: str) -> bytes:
        if not (match := _DATA_URL.fullmatch(url)):
            raise PermanentError(Reason.INVALID_EVENT, "a data: URL must be base64: data:image/png;base64,…")
        try:
            data = base64.b64decode(unquote_to_bytes(match["data"]), validate=True)
        except binascii.Error as error:
            raise PermanentError(Reason.INVALID_EVENT, f"the data: URL is no valid base64: {error}") from error
        self._check_size(len(data))
        return data

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            detail = f"the image has more than {self._max_bytes} bytes (MAX_IMAGE_BYTES)"
            raise PermanentError(Reason.TOO_LARGE, detail)


def _touch_and_close(descriptor: int) -> None:
    try:
        touch(descriptor)
    finally:
        os.close(descriptor)
