"""A bucket and a table of a million, compared by the real command: what it finds, and what memory that takes."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from consumer.adapters import migrations, postgres
from sandbox.object_store import ObjectStore
from sandbox.oss.store import Store
from tests import programs
from tests.bench.usage import peak_mb
from tests.e2e.product_process import basics
from tests.faults.campaign import campaign
from tests.faults.ledger import Verdict
from tests.faults.services import Services

_MOST_MB: Final = 50  # over the same command on an empty bucket
_USERS: Final = 50
_LOOK_EVERY_S: Final = 0.02
_FOUND_SOMETHING: Final = 1
_KEY: Final = "users/user-{user:02}/jobs/job-{number}/image-1703123456789-{number:016x}.png"
_ROWS: Final = f"""
    INSERT INTO job_outputs (id, "jobId", "userId", "eventSource", "eventId", "eventFingerprint", "ossBucket", "ossKey",
        url, "contentType", "sizeBytes", width, height, crc64, "createdAt", "expiresAt", "deletedAt")
    SELECT gen_random_uuid(), 'job-' || i, user_id, '/generators/bench', i, '', '{ObjectStore.bucket}',
        'users/' || user_id || '/jobs/job-' || i || '/image-1703123456789-' || lpad(to_hex(i), 16, '0') || '.png',
        '', 'image/png', 100000 + i % 1000, 64, 48, i, now(),
        CASE WHEN $3 = 'expired' THEN now() END, CASE WHEN $3 = 'deleted' THEN now() END
    FROM (SELECT i, 'user-' || lpad((i % {_USERS})::text, 2, '0') AS user_id FROM generate_series($1::int, $2 - 1) i) n
    """


@dataclass(frozen=True, slots=True)
class _Part:
    """Numbers of outputs that have something in common, and what `reconcile` says of them."""

    numbers: range
    says: str | None = None
    row: str | None = "lasting"
    has_object: bool = True
    more_bytes: int = 0
    more_crc64: int = 0
    is_old: bool = True

    @property
    def keys(self) -> set[str]:
        return {_key(number) for number in self.numbers}

    def objects(self) -> Iterator[tuple[bytes, str, int, str, str, int, str]]:
        """As the index of the bucket has them."""
        modified_at = 1 if self.is_old else int(time.time())
        for number in self.numbers if self.has_object else ():
            size_bytes = 100_000 + number % 1000 + self.more_bytes
            crc64 = str(number + self.more_crc64)
            yield _key(number).encode(), "none", size_bytes, "0" * 32, crc64, modified_at, "{}"


def _key(number: int) -> str:
    return _KEY.format(user=number % _USERS, number=number)


def _parts(objects: int, differences: int) -> list[_Part]:
    borders = iter(range(objects, objects + 20 * differences, differences))

    def some() -> range:
        return range(start := next(borders), start + differences)

    return [
        _Part(range(objects)),
        _Part(some(), "object without row", row=None),
        _Part(some(), "object of a deleted output", row="deleted"),
        _Part(some(), "row without object", has_object=False),
        _Part(some(), "size differs", more_bytes=1),
        _Part(some(), "checksum differs", more_crc64=1),
        # Of which nothing is to be said.
        _Part(some(), row="deleted", has_object=False),
        _Part(some(), row="expired"),
        _Part(some(), row="expired", has_object=False),
        _Part(some(), row=None, is_old=False),
    ]


@dataclass(frozen=True, slots=True)
class _Run:
    """What a run of the command has said, and what it took."""

    code: int | None
    document: dict[str, object]
    peak_mb: float
    seconds: float

    @property
    def told(self) -> set[tuple[str, str]]:
        findings = self.document["findings"]
        assert isinstance(findings, list)
        assert len(findings) == len({finding["key"] for finding in findings})
        return {(finding["what"], finding["key"]) for finding in findings}


@campaign(objects=5_000)
async def inventory(services: Services, *, objects: int = 1_000_000, differences: int = 100) -> Verdict:
    """So many objects with their rows, and so many differences of each kind, are compared by the real command."""
    name = services.fresh_name()
    directory = services.directory / name
    database_url = services.postgres.add_database(name)
    parts = _parts(objects, differences)
    store = ObjectStore(directory / "oss")
    try:
        await _migrate(database_url)
        with store:
            idle = await _reconcile(store, database_url, directory / "idle")
        await asyncio.to_thread(_fill_bucket, directory / "oss" / "data", parts)
        await _fill_table(database_url, parts)
        with store:
            full = await _reconcile(store, database_url, directory / "full")
            one = await _reconcile(store, database_url, directory / "one", "--user", "user-00", "--checksums")
    finally:
        store.remove()
        await _drop(services.postgres.url, name)
    return _verdict(parts, idle, full, one)


def _verdict(parts: list[_Part], idle: _Run, full: _Run, one: _Run) -> Verdict:
    told = {(part.says, key) for part in parts if part.says for key in part.keys}
    expected = {pair for pair in told if pair[0] != "checksum differs"}
    of_one = {(what, key) for what, key in told if key.startswith("users/user-00/")}
    verdict = Verdict({}, [])
    verdict.told("objects", sum(len(part.numbers) for part in parts if part.has_object))
    verdict.told("rows", sum(len(part.numbers) for part in parts if part.row))
    verdict.told("differences", len(expected))
    verdict.told("seconds of reconcile", round(full.seconds, 1))
    verdict.told("MB idle", round(idle.peak_mb, 1))
    verdict.told("MB at most", round(full.peak_mb, 1))
    verdict.told("MB over idle", round(full.peak_mb - idle.peak_mb, 1))
    verdict.told("differences with checksums, of one user", len(of_one))
    verdict.told("seconds with checksums, of one user", round(one.seconds, 1))
    verdict.check("not told", (f"{what} {key}" for what, key in (expected - full.told) | (of_one - one.told)))
    verdict.check("told and not so", (f"{what} {key}" for what, key in (full.told - expected) | (one.told - of_one)))
    grown = [f"{full.peak_mb:.0f} MB, idle {idle.peak_mb:.0f}"] * (full.peak_mb > idle.peak_mb + _MOST_MB)
    verdict.check("memory that grows with the bucket", grown)
    codes = [
        f"{run.code}"
        for run, code in ((idle, 0), (full, _FOUND_SOMETHING), (one, _FOUND_SOMETHING))
        if run.code != code
    ]
    verdict.check("exit codes", codes)
    return verdict


async def _reconcile(store: ObjectStore, database_url: str, home: Path, *words: str) -> _Run:
    """The command was run, as somebody would who types it."""
    await asyncio.to_thread(home.mkdir)
    out, err = home / "out", home / "err"
    env = {
        **basics(home),
        "DATABASE_URL": database_url,
        "OSS_BUCKET": store.bucket,
        "OSS_REGION": store.region,
        "OSS_ACCESS_KEY": store.access_key,
        "OSS_SECRET": store.secret,
        "OSS_ENDPOINT": store.url,
    }
    began = time.monotonic()
    process = programs.start(["consumer", "reconcile", "--json", *words], env, home, out, err, fresh=True)
    assert process.pid
    peak = 0.0
    while process.is_alive():
        try:
            peak = peak_mb(process.pid)  # the last one counts: before, it was not this program yet
        except (LookupError, OSError):
            break
        await asyncio.sleep(_LOOK_EVERY_S)
    await asyncio.to_thread(process.join)
    assert not err.read_text(), err.read_text()
    return _Run(process.exitcode, json.loads(out.read_text()), peak, time.monotonic() - began)


def _fill_bucket(data: Path, parts: list[_Part]) -> None:
    """Objects without content, which neither a listing nor a HEAD looks at."""
    store = Store(data)
    index = store._index  # there is no quicker way in
    index.execute("BEGIN")
    for part in parts:
        index.executemany("INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)", part.objects())
    index.execute("COMMIT")
    store.close()


async def _fill_table(database_url: str, parts: list[_Part]) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        for part in parts:
            if part.row:
                await connection.execute(_ROWS, part.numbers.start, part.numbers.stop, part.row, timeout=600)
    finally:
        await connection.close()


async def _migrate(database_url: str) -> None:
    pool = await postgres.open_pool(database_url)
    await migrations.migrate(pool)
    await postgres.close_pool(pool)


async def _drop(url: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await connection.close()
