"""Erasure on request: the outputs' time has come, and the cleanup does the rest."""

from dataclasses import dataclass
from datetime import datetime

from consumer.adapters.postgres_expiry import PostgresExpiry, Sum, Whose
from consumer.operate.display import progress
from consumer.settings import ExpireSettings


@dataclass(slots=True)
class Tally:
    """What has expired, as far as it came; `at`: since when."""

    done: int = 0
    size_bytes: int = 0
    at: datetime | None = None


async def meant(settings: ExpireSettings, whose: Whose) -> Sum:
    """What would expire.

    Raises:
        StartError: PostgreSQL refuses us.
        DependencyError: it is away.
    """
    async with PostgresExpiry.opened(settings.database_url.get_secret_value()) as rows:
        return await rows.meant(whose, await rows.now())


async def expire(settings: ExpireSettings, whose: Whose, tally: Tally) -> None:
    """Everything that is meant expires at one moment of the database's time.

    Raises:
        StartError, DependencyError: as `meant`; what the tally counts has expired.
    """
    async with PostgresExpiry.opened(settings.database_url.get_secret_value()) as rows:
        await expire_at_once(rows, whose, tally)


async def expire_at_once(rows: PostgresExpiry, whose: Whose, tally: Tally) -> None:
    """The same with the rows that are given."""
    moment = await rows.now()
    tally.at = moment.at
    with progress("outputs", (await rows.meant(whose, moment)).count) as show:
        async for batch in rows.expire(whose, moment):
            tally.done += batch.count
            tally.size_bytes += batch.size_bytes
            show(tally.done)
