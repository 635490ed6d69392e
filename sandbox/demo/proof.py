"""What became of the jobs: heard from the broker, read back from the bucket, looked up in the database."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

import aiohttp
import asyncpg
from yarl import URL

from producer import Publisher
from producer.connection import BrokerError
from producer.outcome import Outcome, Outcomes
from sandbox.demo.jobs import Job
from sandbox.process import eventually
from schemas.events import ImageUploadCompleted, ImageUploadDelayed, ImageUploadFailed

LATEST: Final = 'SELECT * FROM job_outputs ORDER BY "createdAt" DESC LIMIT 1;'

_PATIENCE_S: Final = 60
_DELETED_WITHIN_S: Final = 5
_ROWS: Final = """
    SELECT 'job_outputs' AS name, id, NULL AS reason FROM job_outputs WHERE "eventSource" = $1 AND "eventId" = $2
    UNION ALL
    SELECT 'job_failures', id, reason FROM job_failures WHERE "eventSource" = $1 AND "eventId" = $2"""


@dataclass
class Result:
    """What became of one job; `problems` has a sentence for all that is not as it must be."""

    job: Job
    outcome: Outcome | None = None
    took_s: float = 0
    row: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def image_url(self) -> str:
        """Where the object is, if there is one."""
        return self.outcome.data.image_url if isinstance(self.outcome, ImageUploadCompleted) else ""

    def expect(self, found: object, wanted: object, what: str) -> None:
        """It is a problem if the two differ."""
        if found != wanted:
            self.problems.append(f"{self.job.id}: {what} is {found}, and must be {wanted}")


@dataclass(frozen=True)
class Report:
    """All results, and what holds for them together."""

    results: Sequence[Result]
    latest: str
    problems: Sequence[str]


OnResult = Callable[[Result], None]


async def publish(jobs: Sequence[Job], amqp_url: str, on_result: OnResult) -> list[Result]:
    """All jobs have been published at once, and each has an outcome, or a problem."""
    delays: list[ImageUploadDelayed] = []
    async with Publisher(amqp_url) as publisher, Outcomes(amqp_url, on_delayed=delays.append) as outcomes:

        async def follow(job: Job) -> Result:
            result = await _follow(job, publisher, outcomes)
            result.problems += [f"{job.id}: was delayed by {d.data.reason}" for d in delays if d.data.job_id == job.id]
            on_result(result)
            return result

        return await asyncio.gather(*map(follow, jobs))


async def prove(results: Sequence[Result], settings: Mapping[str, str]) -> Report:
    """Objects, rows and TEMP_DIR have been compared with what the outcomes say."""
    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(_read_back(result, http) for result in results if result.image_url))
    database = await asyncpg.connect(settings["DATABASE_URL"])
    try:
        for result in results:
            await _look_up(result, database)
        latest = await database.fetchrow(LATEST)
    finally:
        await database.close()
    problems = [problem for result in results for problem in result.problems]
    if latest is None or latest["jobId"] not in {result.job.id for result in results if result.image_url}:
        problems.append("the latest row of job_outputs is none of these jobs'")
    if left := await asyncio.to_thread(_left_in, Path(settings["TEMP_DIR"])):
        problems.append(f"TEMP_DIR still holds {', '.join(left)}")
    return Report(results, latest["jobId"] if latest else "nothing", problems)


async def _follow(job: Job, publisher: Publisher, outcomes: Outcomes) -> Result:
    result = Result(job)

    try:
        with outcomes.of(job.event) as outcome:
            started = time.perf_counter()
            await publisher.publish_event(job.event)
            async with asyncio.timeout(_PATIENCE_S):
                result.outcome = await outcome
            result.took_s = time.perf_counter() - started
    except TimeoutError:
        result.problems.append(f"{job.id}: had no outcome within {_PATIENCE_S} s")
    except BrokerError as error:
        result.problems.append(f"{job.id}: {error}")
    wanted = f"failed as {job.reason}" if job.reason else "stored"
    match result.outcome:
        case ImageUploadCompleted():
            result.expect("stored", wanted, "the outcome")
        case ImageUploadFailed() as failed:
            result.expect(f"failed as {failed.data.reason}", wanted, "the outcome")
    return result


async def _read_back(result: Result, http: aiohttp.ClientSession) -> None:
    try:
        async with http.get(URL(result.image_url, encoded=True), raise_for_status=True) as response:
            content = await response.read()
    except aiohttp.ClientError as error:
        result.problems.append(f"{result.job.id}: the object cannot be read: {error}")
        return
    if content != result.job.content:
        result.problems.append(f"{result.job.id}: the object differs from its source")


async def _look_up(result: Result, database: "asyncpg.Connection[asyncpg.Record]") -> None:
    event = result.job.event
    rows = [tuple(row) for row in await database.fetch(_ROWS, event.source, event.id)]
    result.row = "\n".join(f"{table} {id_}" for table, id_, _ in rows)
    match result.outcome:
        case ImageUploadCompleted() as completed:
            result.expect(rows, [("job_outputs", completed.data.output_id, None)], "the rows")
        case ImageUploadFailed() as failed:
            result.expect(rows, [("job_failures", UUID(failed.id), str(failed.data.reason))], "the rows")


def _left_in(temp_dir: Path) -> list[str]:
    """What stays in the directory; a file is deleted shortly after its event's completion is heard of."""
    eventually(lambda: not any(temp_dir.iterdir()), _DELETED_WITHIN_S)
    return [path.name for path in temp_dir.iterdir()]
