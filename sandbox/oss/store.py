"""Objects on disk: one file of content for each, named by an id, and one index over their keys.

The index decides what exists: an object appears, changes and goes in one transaction of SQLite, and its
content file is complete before. Nothing is synced. What was answered survives the death of the process
(SIGKILL too), because the kernel has it; only the death of the machine may lose it, and a test double
need not outlive its machine. For the same reason SQLite runs in WAL mode with `synchronous=OFF`, which
makes one commit about as dear as one `write`.
"""

import hashlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self

import fastcrc

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS objects (
    key BLOB PRIMARY KEY,           -- UTF-8; as bytes they sort the way the service lists them
    content_id TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    etag TEXT NOT NULL,
    crc64 TEXT NOT NULL,            -- unsigned, does not fit an INTEGER
    modified_at INTEGER NOT NULL,   -- epoch seconds
    headers TEXT NOT NULL           -- JSON
) WITHOUT ROWID
"""
_VALUES: Final = "content_id, size_bytes, etag, crc64, modified_at, headers"
_AFTER_EVERY_KEY: Final = b"\xff"  # no UTF-8 text starts with it


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the index knows it."""

    key: str
    content_id: str
    size_bytes: int
    etag: str
    crc64: str
    modified_at: int
    headers: Mapping[str, str]


class Summary(NamedTuple):
    """What a listing tells about an object."""

    key: str
    size_bytes: int
    etag: str
    modified_at: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; `next_position` is where the next one starts, None after the last."""

    objects: list[Summary]
    prefixes: list[str]
    next_position: bytes | None


class Incoming:
    """Content on its way in, gone on leaving the `with` block unless the store has taken it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self.crc64 = 0
        self.md5 = hashlib.md5(usedforsecurity=False)
        self._file: BinaryIO = path.open("wb")

    def write(self, chunk: bytes) -> None:
        """The chunk is in the file and in the sums."""
        self._file.write(chunk)
        self.size_bytes += len(chunk)
        self.crc64 = fastcrc.crc64.xz(chunk, self.crc64)
        self.md5.update(chunk)

    def close(self) -> None:
        """The kernel has all of it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


class Store:
    """The objects of one bucket in one directory, of which it is the only owner."""

    def __init__(self, directory: Path) -> None:
        self._incoming = directory / "incoming"
        self._content = directory / "content"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._content.mkdir(exist_ok=True)
        for left_by_a_killed_server in self._incoming.iterdir():
            left_by_a_killed_server.unlink()
        self._index = sqlite3.connect(directory / "index.sqlite3", isolation_level=None)
        self._index.execute("PRAGMA journal_mode = WAL")
        self._index.execute("PRAGMA synchronous = OFF")
        self._index.execute(_SCHEMA)

    def close(self) -> None:
        """The index is closed; every object stays."""
        self._index.close()

    def receive(self) -> Incoming:
        """An empty file for content that no one can see yet."""
        return Incoming(self._incoming / uuid.uuid4().hex)

    def commit(self, key: str, incoming: Incoming, headers: Mapping[str, str]) -> StoredObject:
        """The object is what came in; readers see the old one until then and never anything between."""
        incoming.close()
        previous = self.find(key)
        stored = StoredObject(
            key=key,
            content_id=incoming.path.name,
            size_bytes=incoming.size_bytes,
            etag=incoming.md5.hexdigest().upper(),
            crc64=str(incoming.crc64),
            modified_at=int(time.time()),
            headers=headers,
        )
        incoming.path.replace(self._path(stored.content_id))
        self._index.execute(
            f"INSERT OR REPLACE INTO objects (key, {_VALUES}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own constant
            (
                key.encode(),
                stored.content_id,
                stored.size_bytes,
                stored.etag,
                stored.crc64,
                stored.modified_at,
                json.dumps(headers),
            ),
        )
        if previous is not None:
            self._path(previous.content_id).unlink(missing_ok=True)
        return stored

    def find(self, key: str) -> StoredObject | None:
        """The object of that key."""
        row = self._index.execute(
            f"SELECT {_VALUES} FROM objects WHERE key = ?",  # noqa: S608 - our own constant
            (key.encode(),),
        ).fetchone()
        if row is None:
            return None
        content_id, size_bytes, etag, crc64, modified_at, headers = row
        return StoredObject(key, content_id, size_bytes, etag, crc64, modified_at, json.loads(headers))

    def open(self, stored: StoredObject) -> BinaryIO:
        """Its content, readable to the end even if it is overwritten or deleted meanwhile."""
        return self._path(stored.content_id).open("rb")

    def delete(self, keys: Iterable[str]) -> None:
        """None of the keys exists, whether they did before or not."""
        gone: list[str] = []
        with self._index:
            self._index.execute("BEGIN")
            for key in keys:
                rows = self._index.execute("DELETE FROM objects WHERE key = ? RETURNING content_id", (key.encode(),))
                gone.extend(content_id for (content_id,) in rows)
        for content_id in gone:
            self._path(content_id).unlink(missing_ok=True)

    def page(self, prefix: str, delimiter: str, position: bytes, limit: int) -> Page:
        """The next `limit` objects and groups from `position` on, in the order of their bytes."""
        entries = list(islice(self._entries(prefix.encode(), delimiter.encode(), position), limit + 1))
        shown = entries[:limit]
        return Page(
            objects=[entry for entry, _ in shown if isinstance(entry, Summary)],
            prefixes=[entry.decode() for entry, _ in shown if isinstance(entry, bytes)],
            next_position=shown[-1][1] if len(entries) > limit else None,
        )

    def _entries(self, prefix: bytes, delimiter: bytes, position: bytes) -> Iterator[tuple[Summary | bytes, bytes]]:
        """Each object or group with the position behind it; a group costs one look-up, not one per key."""
        end = _behind_group(prefix) if prefix else _AFTER_EVERY_KEY
        position = max(position, prefix)
        while True:
            for key, *rest in self._index.execute(
                "SELECT key, size_bytes, etag, modified_at FROM objects WHERE key >= ? AND key < ? ORDER BY key",
                (position, end),
            ):
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                if cut >= 0:
                    group = key[: cut + len(delimiter)]
                    position = _behind_group(group)
                    yield group, position
                    break  # to seek behind the group instead of reading through it
                yield Summary(key.decode(), *rest), behind(key)
            else:
                return

    def _path(self, content_id: str) -> Path:
        return self._content / content_id


def behind(key: bytes) -> bytes:
    """The smallest key that is greater."""
    return key + b"\0"


def _behind_group(group: bytes) -> bytes:
    """The smallest bytes greater than everything that starts with it: UTF-8 never ends in 0xFF."""
    return group[:-1] + bytes((group[-1] + 1,))
