"""The tables: forward-only SQL files, each applied once."""

import asyncio
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

import asyncpg
import structlog

from consumer.adapters.postgres import Connection, Pool
from consumer.core.errors import StartError
from consumer.core.redact import redact

_PAUSE_S: Final = 1.0
_FILE_TIMEOUT_S: Final = 6 * 3600.0  # an index of a large table; cut off, it would be begun anew for ever
_PASSING: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
"""What a restart, a failover or another worker's long migration looks like; all else is a migration's own fault."""

_LOCK: Final = 0x696D6701  # any number that only this program takes
_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS image_uploads_migrations (
        name text PRIMARY KEY, "appliedAt" timestamptz NOT NULL DEFAULT now()
    )"""

_COLUMNS_OF: Final = """
    SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped"""

_log = structlog.get_logger()


async def migrate(pool: Pool) -> list[str]:
    """Every file of `consumer/sql` is applied, in order of name; returns those that were applied now.

    Workers that start together wait for one another. Each run is one transaction: all of its files or none.

    Raises:
        StartError: the user lacks rights, or a table of ours was made by something else; nothing has changed.
    """
    while True:
        try:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                return await _apply(connection)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError) as error:
            raise StartError(
                f"the database user of DATABASE_URL lacks a right ({error}): "
                "`image-uploads check` prints the command that grants it"
            ) from error
        except _PASSING as error:
            _log.warning("waiting to migrate", error=redact(str(error) or repr(error)))
            await asyncio.sleep(_PAUSE_S)


async def pending(pool: Pool) -> list[str]:
    """Names of the files that `migrate` would apply now.

    Raises:
        StartError: a table of ours was made by something else.
        PostgresError: the user may not look.
    """
    async with pool.acquire() as connection:
        return [file.name for file in await _pending(connection)]


async def _apply(connection: Connection) -> list[str]:
    files = await _pending(connection)
    if files:
        await connection.execute(_TABLE)
    for file in files:
        await connection.execute(file.read_text(), timeout=_FILE_TIMEOUT_S)
        await connection.execute("INSERT INTO image_uploads_migrations (name) VALUES ($1)", file.name)
    return [file.name for file in files]


async def _pending(connection: Connection) -> list[Traversable]:
    files = sorted(
        (file for file in resources.files("consumer").joinpath("sql").iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    # Looked up first, for a user who may only read and write can start once the tables are there.
    applied: set[str] = set()
    if await connection.fetchval("SELECT to_regclass('image_uploads_migrations')") is not None:
        applied = {row["name"] for row in await connection.fetch("SELECT name FROM image_uploads_migrations")}
    if not applied:
        await _refuse_foreign_tables(connection, files[0].read_text())
    return [file for file in files if file.name not in applied]


async def _refuse_foreign_tables(connection: Connection, first_file: str) -> None:
    for table in ("job_outputs", "job_failures"):
        found = await connection.fetch(_COLUMNS_OF, table)
        if found:
            names = ", ".join(row["attname"] for row in found)
            raise StartError(
                f"the table {table} was made by something else: it has the columns {names}, "
                f"and needs {', '.join(_columns(first_file, table))}; it is left as it is "
                f'(rename it, and see "Coming from" in the README)'
            )


def _columns(sql: str, table: str) -> list[str]:
    body = sql.split(f"CREATE TABLE {table} (", 1)[1].split("\n);", 1)[0]
    lines = [line.strip() for line in body.splitlines()]
    return [line.split()[0].strip('"') for line in lines if line and not line.startswith(("UNIQUE", "--"))]
