"""What the worker's tables say of a job."""

from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import asyncpg

from producer.api.errors import ApiError
from producer.api.messages import Error, Failed, Stored
from schemas.environment import SettingsError

_TIMEOUT_S: Final = 5.0
_MOST_CONNECTIONS: Final = 4

_Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

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
            with suppress(ApiError):
                await rows.probe()
        except (ValueError, asyncpg.ClientConfigurationError) as error:
            # The driver's words may repeat a part of the URL.
            message = f"DATABASE_URL is not understood ({type(error).__name__}) (see .env.example)"
            raise SettingsError([message]) from None
        return rows

    async def close(self) -> None:
        """The connections are closed."""
        self._pool.terminate()

    async def job(self, user_id: str, job_id: str) -> Stored | Failed | None:
        """What became of the user's job, as far as it is decided; of several images, the latest.

        Raises:
            ApiError: 410 if the image has expired, 503 if the database does not answer.
        """
        output = await self._first(_OUTPUT, job_id, user_id)
        if output is not None and output["gone"]:
            raise ApiError(HTTPStatus.GONE, "expired", "the image has expired and is no longer there")
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
        return Failed(job_id=job_id, error=Error(reason=failure["reason"], detail=failure["detail"]))

    async def probe(self) -> None:
        """The tables can be read.

        Raises:
            ApiError: 503, with the reason why not.
        """
        await self._first(_FAILURE, "", "")

    async def _first(self, query: str, *arguments: str) -> Any:  # noqa: ANN401 a row or none
        try:
            return await self._pool.fetchrow(query, *arguments, timeout=_TIMEOUT_S)
        except asyncpg.ClientConfigurationError:  # which is an InterfaceError, too
            raise
        except asyncpg.UndefinedTableError as error:
            detail = "the tables are not there yet: run `image-uploads migrate`, or start a worker"
            raise _unavailable(detail) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise _unavailable("the database does not answer") from error


def _unavailable(detail: str) -> ApiError:
    headers = {"Retry-After": "5"}
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "database_unavailable", detail, headers=headers)
