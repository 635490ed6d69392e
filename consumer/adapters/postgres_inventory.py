"""The rows as an inventory of the bucket, in the order of their keys' bytes, which is that of its listing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

from consumer.adapters import postgres
from consumer.adapters.postgres import Pool, answer

_PAGE: Final = 1000
_QUERY_TIMEOUT_S: Final = 300  # past millions of rows of another bucket

# Time is the server's: it fixed "expiresAt", and one clock cannot disagree with itself.
_COLUMNS: Final = """
    SELECT "ossKey", id, "sizeBytes", crc64, "deletedAt" IS NOT NULL,
        coalesce("expiresAt" <= clock_timestamp(), false) FROM job_outputs"""
_ROWS: Final = f"""
    {_COLUMNS} WHERE "ossBucket" = $1 AND "ossKey" > $2 AND "ossKey" < $3 ORDER BY "ossKey" LIMIT $4"""
_ROW: Final = f'{_COLUMNS} WHERE "ossKey" = $2 AND "ossBucket" = $1'


@dataclass(frozen=True, slots=True)
class InventoryRow:
    """What a row says of its object; `is_expired`: its time has come, whether or not it is marked deleted."""

    key: str
    output_id: UUID
    size_bytes: int
    crc64: str
    is_deleted: bool
    is_expired: bool


class PostgresInventory:
    """Reads the rows of one bucket, and changes nothing."""

    def __init__(self, pool: Pool, bucket: str) -> None:
        self._pool = pool
        self._bucket = bucket

    @classmethod
    @asynccontextmanager
    async def opened(cls, dsn: str, bucket: str) -> AsyncIterator[Self]:
        """The rows, over connections of its own.

        Raises:
            StartError: the server refuses us.
            DependencyError: it is away.
        """
        async with postgres.opened_pool(dsn) as pool:
            yield cls(pool, bucket)

    async def rows(self, prefix: str) -> AsyncIterator[InventoryRow]:
        """Those whose keys begin with the prefix, which ends with a slash, in the order of their keys' bytes.

        Raises:
            DependencyError: the database does not answer.
        """
        after, end = prefix, prefix.removesuffix("/") + "0"  # the character behind the slash
        while True:
            values = (self._bucket, after, end, _PAGE)
            page = await answer(self._pool.fetch(_ROWS, *values, timeout=_QUERY_TIMEOUT_S))
            for row in page:
                yield InventoryRow(*row)
            if len(page) < _PAGE:
                return
            after = page[-1]["ossKey"]

    async def row(self, key: str) -> InventoryRow | None:
        """The row with that key, if there is one.

        Raises:
            DependencyError: the database does not answer.
        """
        row = await answer(self._pool.fetchrow(_ROW, self._bucket, key))
        return InventoryRow(*row) if row else None
