"""Outputs whose time has come, among others and beside uploads, while whoever removes them is killed."""

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from random import Random
from statistics import quantiles
from typing import Final

import asyncpg

from consumer.core.cleanup import BATCH
from consumer.core.object_key import happened_at
from tests.bench.usage import peak_mb
from tests.faults.campaign import campaign
from tests.faults.ledger import Row, Session, Verdict
from tests.faults.services import Services
from tests.faults.world import World

_USER: Final = "estate"
_KEPT_SHARE: Final = 10
_UPLOADS_PER_S: Final = 25
_UPLOADS_ALONE_S: Final = 4.0
_LONGEST_BATCH_S: Final = 0.6  # from one deletion to the next, about
_LOOK_EVERY_S: Final = 0.05
_PATIENCE_S: Final = 60
_FILL_TIMEOUT_S: Final = 600
_CONTENT: Final = b"GIF89a"

_FILL: Final = """
    INSERT INTO job_outputs (id, "jobId", "userId", "eventSource", "eventId", "eventFingerprint", "ossBucket",
        "ossKey", url, "contentType", "sizeBytes", width, height, crc64, prompt, metadata, "createdAt", "expiresAt")
    SELECT gen_random_uuid(), 'job-' || number, $1, '/generators/estate', 'event-' || number, '', $2,
        'users/' || $1 || '/jobs/job-' || number || '/image-1703123456789-' || lpad(to_hex(number), 16, '0') || '.gif',
        '', 'image/gif', $3, 1, 1, '0', repeat('a red fox ', 10), '{"model": "sdxl"}', now() - interval '1 day',
        CASE WHEN number <= $4 THEN now() - (number % 3600) * interval '1 second'
            WHEN number % 2 = 0 THEN now() + interval '1 hour' END
    FROM generate_series(1, $5::int) AS number
    RETURNING "ossKey\""""
_LEFT: Final = """
    SELECT count(*) FROM job_outputs WHERE "ossBucket" = $1 AND "expiresAt" <= now() AND "deletedAt" IS NULL"""
_ROWS: Final = 'SELECT id, "ossKey", "expiresAt", "deletedAt" FROM job_outputs WHERE "userId" = $1'
_UPLOADS: Final = 'SELECT "ossKey", "createdAt" FROM job_outputs WHERE "userId" <> $1'


@campaign(outputs=2_000, kills=3)
async def expiry(services: Services, *, outputs: int = 100_000, kills: int = 20) -> Verdict:
    """Outputs that are due go, while uploads go on and the worker is killed; a tenth as many that are not due stay."""
    async with World.opened(services, CLEANUP_INTERVAL_S="1") as world:
        database = await asyncpg.connect(world.database_url)
        estate = _Estate(world, database, outputs)
        removal = _Removal(world, estate)
        alone = await world.attached(world.start_worker())
        async with world.load(per_s=_UPLOADS_PER_S):
            began = datetime.now(UTC)
            await asyncio.sleep(_UPLOADS_ALONE_S)
            ended, alone_mb = datetime.now(UTC), peak_mb(alone.pid)
            alone.kill()
            await estate.fill()
            await removal.through_kills(kills, most_apart=max(1, 2 * outputs // (BATCH * (kills + 5)) - 1))
            await removal.in_calm()
        verdict = await world.finish()
        await estate.compare(verdict)
        uploads = [dict(row) for row in await database.fetch(_UPLOADS, _USER)]
        await database.close()
    verdict.figures.update(removal.figures)
    verdict.told("peak with uploads alone in MB", round(alone_mb))
    verdict.told("p95 of uploads alone in ms", _p95_ms(uploads, began, ended))
    return verdict.told("p95 of uploads beside in ms", _p95_ms(uploads, removal.calm_since, datetime.now(UTC)))


class _Estate:
    """Rows and objects of a user who uploads no more: most are due, and a tenth as many are not."""

    def __init__(self, world: World, database: Session, due: int) -> None:
        self._oss = world.oss
        self._ledger = world.ledger
        self._ledger.besides = _USER
        self._database = database
        self._due = due
        self._total = due + due // _KEPT_SHARE

    async def fill(self) -> None:
        """Each of them has its row and its object."""
        values = (_USER, self._oss.bucket, len(_CONTENT), self._due, self._total)
        async with self._database.transaction():
            rows = await self._database.fetch(_FILL, *values, timeout=_FILL_TIMEOUT_S)
            await self._oss.fill([row["ossKey"] for row in rows], _CONTENT)
        await self._database.execute("ANALYZE job_outputs")

    async def left(self) -> int:
        """How many are due and not marked deleted."""
        return int(await self._database.fetchval(_LEFT, self._oss.bucket))

    async def compare(self, verdict: Verdict) -> None:
        """What is left of them, against what was promised."""
        rows = await self._database.fetch(_ROWS, _USER)
        objects, heard, now = self._oss.keys(f"users/{_USER}/"), self._ledger.expirations, datetime.now(UTC)
        due = {str(row["id"]): row for row in rows if row["expiresAt"] is not None and row["expiresAt"] <= now}
        kept = {str(row["id"]): row for row in rows if str(row["id"]) not in due}
        verdict.told("due", len(due)).told("not due", len(kept))
        verdict.told("expirations", sum(map(len, heard.values())))
        verdict.check("rows removed", [f"{self._total - len(rows)} are gone"] * (self._total - len(rows)))
        verdict.check("not due and marked", [name for name, row in kept.items() if row["deletedAt"]])
        verdict.check("not due and deleted", [name for name, row in kept.items() if row["ossKey"] not in objects])
        verdict.check("not due and announced", heard.keys() - due.keys())
        verdict.check("due and not marked", [name for name, row in due.items() if not row["deletedAt"]])
        verdict.check("due and not deleted", [row["ossKey"] for row in due.values() if row["ossKey"] in objects])
        verdict.check("due and not announced", due.keys() - heard.keys())
        verdict.check("expired under several ids", [name for name, ids in heard.items() if len(set(ids)) > 1])


class _Removal:
    """What a worker after the other makes of the estate, and how it went."""

    def __init__(self, world: World, estate: _Estate) -> None:
        self._world = world
        self._estate = estate
        self._random = Random(1)
        self.calm_since = datetime.now(UTC)
        self.figures: dict[str, float] = {"kills": 0, "peak of a worker in MB": 0}

    async def through_kills(self, kills: int, most_apart: int) -> None:
        """So many workers were killed while they removed what is due, at most so many batches apart."""
        self._worker, began = self._world.start_worker(), time.monotonic()
        for _ in range(kills):
            for _ in range(self._random.randint(1, most_apart)):
                await self._removes()
            await asyncio.sleep(self._random.uniform(0, _LONGEST_BATCH_S))
            self._see()
            self._worker.kill()
            self.figures["kills"] += 1
            self._worker = self._world.start_worker()
        self.figures["seconds with kills"] = round(time.monotonic() - began, 1)

    async def in_calm(self) -> None:
        """Nothing is left."""
        await self._removes()
        self.calm_since, began, left = datetime.now(UTC), time.monotonic(), await self._estate.left()
        while await self._removes():
            pass
        self._see()
        took_s = time.monotonic() - began
        self.figures["outputs removed in calm"] = left
        self.figures["seconds in calm"] = round(took_s, 1)
        self.figures["outputs per second in calm"] = round(left / took_s)

    async def _removes(self) -> bool:
        """Another batch is in work; false if nothing is left."""
        before, began = self._world.oss.requests["POST"], time.monotonic()
        while self._world.oss.requests["POST"] == before:
            if await self._estate.left() == 0:
                return False
            if time.monotonic() - began > _PATIENCE_S:
                raise AssertionError(f"nothing was removed within {_PATIENCE_S} s:\n{self._worker.log[-2000:]}")
            await asyncio.sleep(_LOOK_EVERY_S)
        return True

    def _see(self) -> None:
        peak = "peak of a worker in MB"
        self.figures[peak] = max(self.figures[peak], round(peak_mb(self._worker.pid)))


def _p95_ms(uploads: Iterable[Row], began: datetime, ended: datetime) -> int:
    """From the event to its row, of the events in that time."""
    times = [(happened_at(row["ossKey"]), row["createdAt"]) for row in uploads]
    took = [(stored - event).total_seconds() for event, stored in times if event and began <= event <= ended]
    return round(1000 * quantiles(took, n=20)[-1]) if len(took) > 1 else 0
