"""Bucket and rows compared, on a real database and an OSS-protocol server, while others go on."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fastcrc import crc64

from consumer.adapters import migrations, postgres
from consumer.adapters.oss import OssStore
from consumer.adapters.postgres_inventory import PostgresInventory
from consumer.adapters.postgres_records import PostgresRecords
from consumer.core.errors import UploadError
from consumer.core.ports import Image
from consumer.core.records import Output
from consumer.operate.reconcile import Finding, State, Summary, reconcile
from consumer.settings import ReconcileSettings
from sandbox.oss import Credentials, Fault, Kind, OssServer
from sandbox.oss.address import Address
from sandbox.oss.answer import Answer
from tests import samples

pytestmark = pytest.mark.real

FOX = b"fox"
DAY_S = 86_400


def key(number: int, user_id: str = "u", job_id: str = "j") -> str:
    return f"users/{user_id}/jobs/{job_id}/image-{number}-1f3a9c02d4e5b677.png"


class Server(OssServer):
    """Some of its objects have no checksum, as those that were put together from parts long ago."""

    without_checksum: str | None = None

    async def _answer(self, request: web.BaseRequest, address: Address) -> Answer:
        answer = await super()._answer(request, address)
        if address.key == self.without_checksum:
            del answer.headers["x-oss-hash-crc64ecma"]
        return answer


@dataclass
class Reconciled:
    """What came of it."""

    findings: list[Finding] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)

    @property
    def told(self) -> list[tuple[State, str]]:
        return [(finding.what, finding.key) for finding in self.findings]


def _unseen(_done: int) -> None:
    """Nobody looks at a bar."""


class World:
    """A bucket and a table, and somebody who compares them."""

    def __init__(self, server: Server, pool: postgres.Pool, settings: ReconcileSettings) -> None:
        self.server = server
        self.pool = pool
        self.settings = settings
        self.store = OssStore(settings, timeout_s=10)
        self.records = PostgresRecords(pool)

    async def put(self, name: str, data: bytes = FOX, age_s: int = 2 * DAY_S) -> None:
        """The object is there since so long ago."""
        image = Image(io.BytesIO(data), len(data), crc64.xz(data))
        await self.store.put(name, image, content_type="image/png", event_id="e")
        index = self.server._store._index
        index.execute("UPDATE objects SET modified_at = modified_at - ? WHERE key = ?", (age_s, name.encode()))

    async def fill(self, names: list[str]) -> None:
        """Objects are there without content, which neither a listing nor a HEAD looks at."""
        values = [(name.encode(), "none", 3, "0" * 32, str(crc64.xz(FOX)), 1, json.dumps({})) for name in names]
        self.server._store._index.executemany("INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    async def record(self, name: str, **changes: Any) -> Output:
        """The row is there."""
        of = {"oss_key": name, "oss_bucket": "images", "size_bytes": len(FOX), "crc64": str(crc64.xz(FOX))}
        return await self.records.record(samples.output(samples.event(), **(of | changes)))

    async def both(self, name: str, data: bytes = FOX, **changes: Any) -> Output:
        """The object and its row are there."""
        await self.put(name, data)
        return await self.record(name, **changes)

    async def delete(self, name: str) -> None:
        """The row is marked deleted."""
        await self.pool.execute("""UPDATE job_outputs SET "deletedAt" = now() WHERE "ossKey" = $1""", name)

    async def expire(self, name: str) -> None:
        """The row's time has come."""
        await self.pool.execute("""UPDATE job_outputs SET "expiresAt" = now() WHERE "ossKey" = $1""", name)

    async def reconciled(self, user_id: str | None = None, *, checksums: bool = False) -> Reconciled:
        """What differs."""
        came = Reconciled()
        tell = came.findings.append
        await reconcile(self.settings, user_id, came.summary, tell, _unseen, checksums=checksums)
        return came


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    async with Server(tmp_path / "oss", Credentials("key", "secret"), bucket="images") as server:
        settings = ReconcileSettings(
            database_url=database_url,
            oss_bucket="images",
            oss_region="cn-hangzhou",
            OSS_ACCESS_KEY="key",
            OSS_SECRET="secret",
            oss_endpoint=server.url,
        )
        pool = await postgres.open_pool(database_url)
        await migrations.migrate(pool)
        world = World(server, pool, settings)
        yield world
        await world.store.close()
        await postgres.close_pool(pool)


async def test_each_kind_of_difference_is_told_in_the_order_of_the_keys_and_nothing_else(world: World) -> None:
    await world.both(key(10))
    await world.put(key(11))
    deleted = await world.both(key(12))
    await world.delete(key(12))
    lost = await world.record(key(13))
    larger = await world.both(key(14), b"foxes")
    await world.both(key(15), b"cat")  # of the same size
    # What is as it should be, or cannot be told.
    await world.record(key(20))
    await world.delete(key(20))
    await world.both(key(21))
    await world.expire(key(21))
    await world.record(key(22))
    await world.expire(key(22))
    await world.put(key(23), age_s=60)
    await world.put("users/u/holiday.png")
    await world.record(key(24), oss_bucket="another")
    await world.put("elsewhere/" + key(25))

    came = await world.reconciled()
    assert came.told == [
        (State.ORPHAN, key(11)),
        (State.UNDELETED, key(12)),
        (State.LOST, key(13)),
        (State.OTHER_SIZE, key(14)),
    ]
    assert [finding.output_id for finding in came.findings] == [None, deleted.id, lost.id, larger.id]
    size = came.findings[-1]
    assert (size.object_bytes, size.row_bytes) == (5, 3)
    assert size.detail.startswith("object: 5 bytes, of ")
    assert size.detail.endswith(f"row: 3 bytes, output {larger.id}")
    assert came.summary.states == {
        State.ORPHAN: 1,
        State.UNDELETED: 1,
        State.LOST: 1,
        State.OTHER_SIZE: 1,
        State.MATCHING: 2,
        State.DELETED: 1,
        State.EXPIRED: 2,
        State.YOUNG: 1,
        State.FOREIGN: 1,
    }
    assert (came.summary.objects, came.summary.rows, came.summary.differences) == (8, 8, 4)


async def test_checksums_are_compared_when_asked_and_an_object_without_one_is_counted(world: World) -> None:
    await world.both(key(1))
    other = await world.both(key(2), b"cat")
    await world.both(key(3))
    world.server.without_checksum = key(3)
    assert (await world.reconciled()).told == []
    came = await world.reconciled(checksums=True)
    assert came.told == [(State.OTHER_CHECKSUM, key(2))]
    assert came.findings[0].output_id == other.id
    assert f"crc64 {crc64.xz(b'cat')}" in came.findings[0].detail
    assert f"crc64 {other.crc64}" in came.findings[0].detail
    assert came.summary.states == {State.OTHER_CHECKSUM: 1, State.MATCHING: 1, State.UNKNOWN_CHECKSUM: 1}


async def test_two_thousand_five_hundred_objects_over_the_borders_of_pages(world: World) -> None:
    names = sorted(key(number) for number in range(2500))
    await world.fill(names)
    rows = [name for place, name in enumerate(names) if place not in {0, 999, 1000, 2499}]
    await asyncio.gather(*(world.record(name) for name in rows))
    await world.record(last := "users/v/jobs/j/image-1-1f3a9c02d4e5b677.png")
    orphans = [names[place] for place in (0, 999, 1000, 2499)]
    for checksums in (False, True):
        came = await world.reconciled(checksums=checksums)
        assert came.told == [*((State.ORPHAN, name) for name in orphans), (State.LOST, last)]
        assert (came.summary.objects, came.summary.rows) == (2500, 2497)
        assert came.summary.states[State.MATCHING] == 2496
        assert came.summary.done == 2501


USERS = ["a", "a.b", "a:b", "a|b", "a+b", "aa", "A", "a@factory-buy.com", "a-", "a_"]


@pytest.mark.parametrize("user_id", USERS)
async def test_only_what_is_the_users_is_compared_however_odd_the_id(world: World, user_id: str) -> None:
    for name in USERS:
        await world.both(key(1, name))
        await world.put(key(2, name))
        await world.record(key(3, name))
    came = await world.reconciled(user_id)
    assert came.told == [(State.ORPHAN, key(2, user_id)), (State.LOST, key(3, user_id))]
    assert (came.summary.objects, came.summary.rows) == (2, 2)
    everybodys = await world.reconciled()
    assert len(everybodys.findings) == 2 * len(USERS)
    assert [name for _, name in everybodys.told] == sorted((name for _, name in everybodys.told), key=str.encode)


class Meanwhile:
    """Lets others act right before the first page of rows is read, when the objects are listed already."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[object]]) -> None:
        rows = PostgresInventory.rows

        async def late(inventory: PostgresInventory, prefix: str) -> AsyncIterator[Any]:
            await act()
            async for row in rows(inventory, prefix):
                yield row

        monkeypatch.setattr(PostgresInventory, "rows", late)


async def test_an_upload_that_ends_between_the_two_listings_is_no_finding(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.both(key(1))
    Meanwhile(monkeypatch, lambda: world.both(key(2)))
    came = await world.reconciled()
    assert came.told == []
    assert came.summary.states == {State.MATCHING: 2}


async def test_a_cleanup_between_the_two_listings_is_no_finding(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.both(key(1))

    async def clean_up() -> None:
        await world.expire(key(1))
        await world.store.delete(key(1))
        await world.delete(key(1))

    Meanwhile(monkeypatch, clean_up)
    came = await world.reconciled()
    assert came.told == []
    assert came.summary.states == {State.DELETED: 1}


async def test_an_object_that_goes_while_it_is_looked_at_is_no_finding(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.both(key(1), b"foxes")
    row = PostgresInventory.row

    async def late(inventory: PostgresInventory, name: str) -> Any:
        # Between the look at the object and the look at its row.
        await world.expire(name)
        await world.store.delete(name)
        await world.delete(name)
        return await row(inventory, name)

    monkeypatch.setattr(PostgresInventory, "row", late)
    came = await world.reconciled(checksums=True)
    assert came.told == []
    assert came.summary.states == {State.DELETED: 1}


async def test_an_upload_that_is_cleaned_up_between_the_looks_at_its_row_and_its_object_is_no_finding(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    Meanwhile(monkeypatch, lambda: world.both(key(1)))
    row = PostgresInventory.row

    async def early(inventory: PostgresInventory, name: str) -> Any:
        found = await row(inventory, name)
        await world.expire(name)
        await world.store.delete(name)
        return found

    monkeypatch.setattr(PostgresInventory, "row", early)
    assert (await world.reconciled()).told == []


async def test_an_orphan_that_gets_its_row_is_no_finding(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.put(key(1))
    head = OssStore.head

    async def late(store: OssStore, name: str) -> Any:
        await world.record(name)
        return await head(store, name)

    monkeypatch.setattr(OssStore, "head", late)
    assert (await world.reconciled()).told == []


async def test_a_store_that_fails_ends_it_with_its_own_words_and_the_summary_says_how_far_it_came(world: World) -> None:
    for number in range(1, 4):
        await world.both(key(number))
    world.server.faults.add(Fault(Kind.DENY, method="HEAD", key_prefix=key(2)))
    came = Reconciled()
    with pytest.raises(UploadError, match="OSS answered 403"):
        await reconcile(world.settings, None, came.summary, came.findings.append, _unseen, checksums=True)
    assert came.summary.objects >= 2
    assert came.summary.done < 3


async def test_a_grace_of_none_tells_of_the_youngest(world: World) -> None:
    await world.put(key(1), age_s=1)
    world.settings = world.settings.model_copy(update={"orphan_grace_s": 0})
    assert (await world.reconciled()).told == [(State.ORPHAN, key(1))]
