"""The bucket of a fault run: filled at once, made to refuse a share of what is uploaded; it knows when it answered."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path
from random import Random
from typing import Final

from aiohttp import web
from fastcrc import crc64

from sandbox.oss.address import Address
from sandbox.oss.answer import Answer
from sandbox.oss.errors import OssError
from tests.e2e.watched_oss import WatchedOss

_LINKS: Final = 10_000  # of one file
_INSERT: Final = """
    INSERT INTO objects (key, content_id, size_bytes, etag, crc64, modified_at, headers)
    VALUES (?, ?, ?, ?, ?, ?, '{}')"""


class Storage(WatchedOss):
    """Answers 503 to `refused_share` of the uploads, and counts those in `refused`."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.refused_share = 0.0
        self.refused = 0
        self._good_answers_at: list[float] = []
        self._random = Random(1)

    async def _answer(self, request: web.BaseRequest, address: Address) -> Answer:
        if request.method == "PUT" and self._random.random() < self.refused_share:
            self.refused += 1
            raise OssError("UploadTrafficRateLimitExceeded")
        answer = await super()._answer(request, address)
        self._good_answers_at.append(time.monotonic())
        return answer

    async def fill(self, keys: Sequence[str], content: bytes) -> None:
        """Under each of the keys there is an object of this content, as if it had been put a day ago."""
        await asyncio.to_thread(self._write, keys, content)
        summary = (len(content), md5(content, usedforsecurity=False).hexdigest().upper(), str(crc64.xz(content)))
        modified_at = int(time.time()) - 86_400
        with self._store._index as index:
            index.execute("BEGIN")
            index.executemany(_INSERT, [(key.encode(), _id(key), *summary, modified_at) for key in keys])

    def _write(self, keys: Sequence[str], content: bytes) -> None:
        # By links: a disk that is told of every block it may forget takes milliseconds for each file that goes.
        for number, key in enumerate(keys):
            path, first = (self._store._path(_id(one)) for one in (key, keys[number // _LINKS * _LINKS]))
            if path == first:
                path.write_bytes(content)
            else:
                path.hardlink_to(first)

    def keys(self, prefix: str) -> set[str]:
        """The keys of the objects that there are."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self._store._index.execute(
            "SELECT key FROM objects WHERE key >= ? AND key < ?", (prefix.encode(), end.encode())
        )
        return {key.decode() for (key,) in found}

    def first_good_answer(self, since: float) -> float | None:
        """When it first gave a good answer at or after that time, if it has."""
        return next(iter(self._good_answers_at[bisect_left(self._good_answers_at, since) :]), None)


def _id(key: str) -> str:
    return md5(key.encode(), usedforsecurity=False).hexdigest()
