"""Connections to PostgreSQL, and whose fault its errors are."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import asyncpg
import structlog

from consumer.core.errors import DependencyError, StartError
from consumer.core.redact import redact
from schemas.reasons import Reason

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Asked: TypeAlias = "asyncpg.Pool[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

_CONNECT_TIMEOUT_S: Final = 10.0
_COMMAND_TIMEOUT_S: Final = 15.0
_CLOSE_TIMEOUT_S: Final = 5.0
_PAUSE_S: Final = 1.0
_MOST_CONNECTIONS: Final = 4  # grouped statements need few
_SETTINGS: Final = {
    "application_name": "image-uploads",
    "timezone": "UTC",
    # The lock of whoever fell silent between two statements must not stop everybody else until the machines' own
    # patience ends, which is two hours. No transaction of ours waits for anything but the server.
    "idle_in_transaction_session_timeout": "10s",
    # A plan made while the tables were empty would scan them for ever after.
    "plan_cache_mode": "force_custom_plan",
}
LOST: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver's confusion between a server's last word and the end of the connection
    OSError,
    TimeoutError,
)
BAD_DATA: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""What the server would refuse again, however well it is. Not translated: such data should not have come so far."""

_log = structlog.get_logger()


def address(dsn: str) -> str:
    """Host, port and database, without credentials."""
    parsed = urlsplit(dsn)
    return (parsed.netloc.rpartition("@")[2] or "localhost") + parsed.path


async def open_pool(dsn: str) -> Pool:
    """A pool with one live connection; waits for a server that is away.

    Raises:
        StartError: the server refuses us, and will go on doing so.
    """
    while True:
        try:
            return await try_pool(dsn)
        except LOST as error:
            _log.warning("waiting for PostgreSQL", address=address(dsn), error=redact(str(error) or repr(error)))
            await asyncio.sleep(_PAUSE_S)


async def try_pool(dsn: str) -> Pool:
    """A pool with one live connection.

    Raises:
        StartError: as `open_pool`; its cause is the driver's error, unless that would show a part of the URL.
        LOST: the server is away.
    """
    where = address(dsn)
    try:
        return await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=_MOST_CONNECTIONS,
            timeout=_CONNECT_TIMEOUT_S,
            command_timeout=_COMMAND_TIMEOUT_S,
            server_settings=_SETTINGS,
            reset=_as_it_is,
        )
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        message = f"PostgreSQL at {where} refuses the login: check user and password of DATABASE_URL"
        raise StartError(message) from error
    except asyncpg.InvalidCatalogNameError as error:
        name = urlsplit(dsn).path.lstrip("/")
        raise StartError(f"PostgreSQL at {where} has no such database: create it with `createdb {name}`") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise StartError(f"PostgreSQL at {where} refuses the connection: {error}") from error
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        # The driver's words may repeat a part of the URL.
        raise StartError(f"DATABASE_URL is not understood ({type(error).__name__}): see .env.example") from None


@asynccontextmanager
async def opened_pool(dsn: str) -> AsyncIterator[Pool]:
    """A pool for a command, which does not wait for a server that is away; closed at the end of the context.

    Raises:
        StartError: the server refuses us.
        DependencyError: it is away.
    """
    try:
        pool = await try_pool(dsn)
    except LOST as error:
        detail = redact(f"PostgreSQL at {address(dsn)} does not answer: {str(error) or repr(error)}")
        raise DependencyError("database", Reason.DATABASE_UNAVAILABLE, detail) from error
    try:
        yield pool
    finally:
        await close_pool(pool)


async def _as_it_is(_connection: object) -> None:
    """Nothing of a session is changed outside its transactions, so nothing is asked of the server to undo it."""


async def close_pool(pool: Pool) -> None:
    """The connections are closed, those of unfinished statements too."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """One transaction, committed at the end of the context, or rolled back.

    Raises:
        DependencyError: the database does not answer, or refuses what has nothing to do with the data; a commit whose
            answer was lost may have happened.
    """
    with _blame():
        async with pool.acquire(timeout=_CONNECT_TIMEOUT_S) as connection, connection.transaction():
            yield connection


Answer = TypeVar("Answer")


async def answer(query: Awaitable[Answer]) -> Answer:
    """The query's answer.

    Raises:
        DependencyError: as `transaction`.
    """
    with _blame():
        return await query


@contextmanager
def _blame() -> Iterator[None]:
    try:
        yield
    except BAD_DATA:
        raise
    except LOST as error:
        detail = redact(f"PostgreSQL: {_words(error)}")
        raise DependencyError("database", Reason.DATABASE_UNAVAILABLE, detail) from error


def _words(error: BaseException) -> str:
    # Leaving a transaction whose connection is gone is an error too, which hides what the server said last.
    hidden = error.__context__
    said = hidden if isinstance(error, asyncpg.InterfaceError) and isinstance(hidden, asyncpg.PostgresError) else error
    return str(said) or type(said).__name__
