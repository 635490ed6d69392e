"""Bucket and rows, compared: two sorted listings are merged, so that a million objects are held no longer than a page.

Uploads and cleanups go on meanwhile, and the two listings are never of one moment: a difference is told only when two
looks at its object and its row in a row say the same.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID

from consumer.adapters.oss import UNKNOWN_CRC64, OssStore, StoredObject
from consumer.adapters.postgres_inventory import InventoryRow, PostgresInventory
from consumer.core.cleanup import BATCH
from consumer.core.object_key import is_ours
from consumer.core.ports import ListedObject
from consumer.settings import ReconcileSettings

_AT_ONCE: Final = 16  # looks: a service far away takes its time, and uploads go on beside us
_SHOW_EVERY: Final = 100


class State(StrEnum):
    """What an object and its row are to each other."""

    MATCHING = "matching"
    UNKNOWN_CHECKSUM = "checksum unknown"
    EXPIRED = "expired"  # the cleanup is about to take it, or just has
    DELETED = "deleted"
    YOUNG = "too young to tell"
    FOREIGN = "not ours"
    GONE = "gone meanwhile"
    ORPHAN = "object without row"
    UNDELETED = "object of a deleted output"
    LOST = "row without object"
    OTHER_SIZE = "size differs"
    OTHER_CHECKSUM = "checksum differs"


ADVICE: Final = {
    State.ORPHAN: "an upload whose event failed or waits, or a row that was lost: look at the job with "
    "`image-uploads trace`, and delete the object yourself if nobody needs it; no cleanup does",
    State.UNDELETED: "it came back after the cleanup, such as by a restore of the bucket: delete it yourself; "
    "no cleanup does",
    State.LOST: "announcing again does not help: restore the object from the bucket's versions or a copy, or set the "
    "output's time with `image-uploads expire --output` and have its image generated anew",
    State.OTHER_SIZE: "something else has written to the bucket: restore the object from the bucket's versions or a "
    "copy, or expire the output",
    State.OTHER_CHECKSUM: "the bytes are not those that were stored: restore the object from the bucket's versions or "
    "a copy, or expire the output",
}
"""What differs, and what an operator can do about it."""

Found: TypeAlias = ListedObject | StoredObject
Pair: TypeAlias = tuple[str, ListedObject | None, InventoryRow | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference that two looks agree on."""

    what: State
    key: str
    detail: str
    output_id: UUID | None
    object_bytes: int | None
    row_bytes: int | None


@dataclass(slots=True)
class Summary:
    """What was compared so far."""

    objects: int = 0
    object_bytes: int = 0
    rows: int = 0
    states: Counter[State] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """How many keys."""
        return self.states.total()

    @property
    def differences(self) -> int:
        """How many of them are findings."""
        return sum(self.states[state] for state in ADVICE)


Tell: TypeAlias = Callable[[Finding], None]
Show: TypeAlias = Callable[[int], None]


async def reconcile(
    settings: ReconcileSettings, user_id: str | None, summary: Summary, tell: Tell, show: Show, *, checksums: bool
) -> None:
    """Every object and row, of the user if one is named, was compared, and what differs was told.

    Raises:
        StartError: PostgreSQL refuses us.
        DependencyError, UploadError: PostgreSQL or OSS does not answer; the summary says how far it came.
    """
    prefix = "users/" if user_id is None else f"users/{user_id}/"
    store = OssStore(settings, timeout_s=settings.oss_timeout_s)
    try:
        async with PostgresInventory.opened(settings.database_url.get_secret_value(), store.bucket) as rows:
            grace = timedelta(seconds=settings.orphan_grace_s)
            comparison = Comparison(store, rows, grace, summary, checksums=checksums)
            await comparison.of(prefix, tell, show)
    finally:
        await store.close()


async def merge(objects: AsyncIterator[ListedObject], rows: AsyncIterator[InventoryRow]) -> AsyncGenerator[Pair, None]:
    """Each key once, in the order of their bytes, with what there is under it; both sides come in that order."""
    found, row = await anext(objects, None), await anext(rows, None)
    while found is not None or row is not None:
        # Code points sort as their bytes in UTF-8 do.
        key = min(one.key for one in (found, row) if one is not None)
        here = found if found is not None and found.key == key else None
        there = row if row is not None and row.key == key else None
        yield key, here, there
        if here is not None:
            found = await anext(objects, None)
        if there is not None:
            row = await anext(rows, None)


def judge(key: str, found: Found | None, row: InventoryRow | None, young_since: datetime) -> State:
    """What the two are to each other; checksums are compared if the object's is known."""
    if row is None:
        return _without_row(key, found, young_since)
    if row.is_deleted:
        return State.DELETED if found is None else State.UNDELETED
    if row.is_expired:
        return State.EXPIRED
    return State.LOST if found is None else _with_row(found, row)


def _with_row(found: Found, row: InventoryRow) -> State:
    if found.size_bytes != row.size_bytes:
        return State.OTHER_SIZE
    if not isinstance(found, StoredObject) or found.crc64 == row.crc64:
        return State.MATCHING
    return State.UNKNOWN_CHECKSUM if found.crc64 == UNKNOWN_CRC64 else State.OTHER_CHECKSUM


def _without_row(key: str, found: Found | None, young_since: datetime) -> State:
    if found is None:
        return State.GONE
    if not is_ours(key):
        return State.FOREIGN
    return State.YOUNG if found.modified_at > young_since else State.ORPHAN


class Comparison:
    """Of one bucket with its rows, into one summary."""

    def __init__(
        self, store: OssStore, rows: PostgresInventory, grace: timedelta, summary: Summary, *, checksums: bool
    ) -> None:
        self._store = store
        self._rows = rows
        self._grace = grace
        self._summary = summary
        self._checksums = checksums

    async def of(self, prefix: str, tell: Tell, show: Show) -> None:
        """Everything under the prefix was compared; findings are told in the order of their keys, as they are made."""
        looks: deque[asyncio.Task[Finding | State]] = deque()

        async def end_first() -> None:
            self._add(await looks.popleft(), tell)

        try:
            async with aclosing(merge(_objects(self._store, prefix), self._rows.rows(prefix))) as pairs:
                async for pair in pairs:
                    state = self._first_look(pair)
                    if state in ADVICE or (self._checksums and state is State.MATCHING):
                        looks.append(asyncio.create_task(self._look_closer(pair, state)))
                    else:
                        self._add(state, tell)
                    while looks and (len(looks) > _AT_ONCE or looks[0].done()):
                        await end_first()
                    if self._summary.done % _SHOW_EVERY == 0:
                        show(self._summary.done)
            while looks:
                await end_first()
        finally:
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    def _first_look(self, pair: Pair) -> State:
        _, found, row = pair
        if found is not None:
            self._summary.objects += 1
            self._summary.object_bytes += found.size_bytes
        self._summary.rows += row is not None
        return self._judge(*pair)

    def _add(self, result: Finding | State, tell: Tell) -> None:
        if isinstance(result, Finding):
            tell(result)
            result = result.what
        self._summary.states[result] += 1

    async def _look_closer(self, pair: Pair, state: State) -> Finding | State:
        key, _, row = pair
        if state not in ADVICE:  # then what is in question is the checksum alone
            state = self._judge(key, await self._store.head(key), row)
        while state in ADVICE:
            before = state
            # The object first: an upload's object is there before its row, and a cleanup's is gone before its mark.
            found = await self._store.head(key)
            row = await self._rows.row(key)
            state = self._judge(key, found, row)
            if state is before:
                return _finding(state, key, found, row)
        return state

    def _judge(self, key: str, found: Found | None, row: InventoryRow | None) -> State:
        return judge(key, found, row, datetime.now(UTC) - self._grace)


async def _objects(store: OssStore, prefix: str) -> AsyncIterator[ListedObject]:
    after = ""
    while page := await store.listed(after, prefix):
        for found in page:
            yield found
        if len(page) < BATCH:
            return
        after = page[-1].key


def _finding(what: State, key: str, found: StoredObject | None, row: InventoryRow | None) -> Finding:
    parts = []
    if found is not None:
        crc64 = f", crc64 {found.crc64}" * (what is State.OTHER_CHECKSUM)
        parts.append(f"object: {found.size_bytes} bytes{crc64}, of {found.modified_at:%Y-%m-%d %H:%M:%SZ}")
    if row is not None:
        crc64 = f", crc64 {row.crc64}" * (what is State.OTHER_CHECKSUM)
        parts.append(f"row: {row.size_bytes} bytes{crc64}, output {row.output_id}")
    return Finding(
        what=what,
        key=key,
        detail="; ".join(parts),
        output_id=row.output_id if row else None,
        object_bytes=found.size_bytes if found else None,
        row_bytes=row.size_bytes if row else None,
    )
