"""What the worker's tables say of a job."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import asyncpg
import structlog

from producer.api.errors import ApiError, expired, for_users
from producer.api.messages import Error, Failed, Stored
from schemas.environment import SettingsError
from schemas.reasons import Reason

_TIMEOUT_S: Final = 5.0
_RELEASE_TIMEOUT_S: Final = 0.5
_MOST_CONNECTIONS: Final = 4
_LOST: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

_log = structlog.get_logger()

_Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
_Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

# An output wins over a failure: the event of a failed job may have been sent again by an operator.
_OUTPUT: Final = """
    SELECT id, url, "createdAt", "expiresAt",
           "deletedAt" IS NOT NULL OR coalesce("expiresAt" <= now(), false) AS gone
    FROM job_outputs WHERE "jobId" = $1 AND "userId" = $2
    ORDER BY "createdAt" DESC LIMIT 1"""
_FAILURE: Final = """
    SELECT reason, detail FROM job_failures
    WHERE "jobId" = $1 AND "userId" = $2 AND "resolvedAt" IS NULL
    ORDER BY "failedAt" DESC LIMIT 1"""


class Rows:
    """Reads `job_outputs` and `job_failures`; it connects as it reads."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, dsn: str) -> "Rows":
        """The database was asked once; whether it answered is told by the next question.

        Raises:
            SettingsError: The DSN is not understood.
        """
        pool = await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=_MOST_CONNECTIONS,
            timeout=_TIMEOUT_S,
            command_timeout=_TIMEOUT_S,
            server_settings={"application_name": "image-uploads api", "timezone": "UTC"},
        )
        rows = cls(pool)
        try:
            async with rows.connected():
                pass
        except (ValueError, asyncpg.ClientConfigurationError) as error:
            # The driver's words may repeat a part of the URL.
            message = f"DATABASE_URL is not understood ({type(error).__name__}) (see .env.example)"
            raise SettingsError([message]) from None
        except _LOST as error:
            _log.debug("the database does not answer yet", error=type(error).__name__)
        return rows

    async def close(self) -> None:
        """The connections are closed."""
        self._pool.terminate()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[_Connection]:
        """A connection, for five seconds at most, which include waiting for one.

        Raises:
            PostgresError, InterfaceError, OSError, TimeoutError: There is none, or it does not answer in time.
        """
        async with asyncio.timeout(_TIMEOUT_S):
            connection = await self._pool.acquire()
            try:
                yield connection
            finally:
                # One that hangs is cut: by itself it would wait until the server has heard of being given up.
                with suppress(TimeoutError):
                    await self._pool.release(connection, timeout=_RELEASE_TIMEOUT_S)

    async def job(self, user_id: str, job_id: str) -> Stored | Failed | None:
        """What became of the user's job, as far as it is decided; of several images, the latest.

        Raises:
            ApiError: 410 if the image has expired, 503 if the database does not answer.
        """
        output = await self._first(_OUTPUT, job_id, user_id)
        if output is not None and output["gone"]:
            raise expired()
        if output is not None:
            return Stored(
                job_id=job_id,
                image_url=output["url"],
                output_id=output["id"],
                created_at=output["createdAt"],
                expires_at=output["expiresAt"],
            )
        failure = await self._first(_FAILURE, job_id, user_id)
        if failure is None:
            return None
        reason = Reason(failure["reason"])
        return Failed(job_id=job_id, error=Error(reason=reason, detail=for_users(reason, failure["detail"])))

    async def probe(self) -> None:
        """The tables can be read.

        Raises:
            ApiError: 503, with the reason why not.
        """
        await self._first(_FAILURE, "", "")

    async def _first(self, query: str, *arguments: str) -> Any:  # noqa: ANN401 a row or none
        try:
            async with self.connected() as connection:
                return await connection.fetchrow(query, *arguments)
        except asyncpg.UndefinedTableError as error:
            raise _unavailable(error, "the tables are not there yet: a worker makes them when it starts") from error
        except _LOST as error:
            raise _unavailable(error, "the database does not answer") from error


def _unavailable(error: Exception, detail: str) -> ApiError:
    # What exactly is wrong is for the operator, who is told by the log.
    _log.warning(detail, error=f"{type(error).__name__}: {error}")
    headers = {"Retry-After": "5"}
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "database_unavailable", detail, headers=headers)
