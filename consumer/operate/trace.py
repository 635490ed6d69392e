"""Rows, objects, dead letters and temp files of one job are looked at; nothing is changed."""

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from consumer.adapters.file_source import FileSource
from consumer.adapters.oss import OssStore, StoredObject
from consumer.adapters.postgres_history import PostgresHistory
from consumer.adapters.rabbit_dead_letters import DeadLetters
from consumer.core.errors import TransientError, UploadError
from consumer.core.records import Output
from consumer.operate.choice import Choice
from consumer.operate.dead_letters import chosen
from consumer.operate.timeline import Known, KnownFailure, KnownOutput, Missing, TempFile, Unknown, file_urls
from consumer.settings import TraceSettings
from schemas.reasons import Reason

_ANY: Final = 2**63  # however large, it is only looked at


async def known_of(settings: TraceSettings, job_id: str) -> Known:
    """All that is known of the job; an object or file that cannot be looked at says why.

    Raises:
        StartError: RabbitMQ or PostgreSQL refuses us.
        BrokerError, DependencyError: RabbitMQ or PostgreSQL does not answer.
    """
    # The letters first: a letter comes after its row, so every one that is seen has a row that will be.
    async with DeadLetters.opened(settings.amqp_url.get_secret_value()) as queue:
        letters = [found.letter async for found in chosen(queue, Choice(job_id=job_id))]
    async with PostgresHistory.opened(settings.database_url.get_secret_value()) as history:
        rows = await history.outputs_of(job_id)
        failures = [KnownFailure(*found) for found in await history.failures_of(job_id)]
    look = _Look(OssStore(settings, timeout_s=settings.oss_timeout_s), FileSource(settings.temp_dir, max_bytes=_ANY))
    try:
        return Known(
            outputs=[KnownOutput(row, deleted_at, await look.at_object(row)) for row, deleted_at in rows],
            failures=failures,
            letters=letters,
            files={url: await look.at_file(url) for url in file_urls(failures, letters)},
        )
    finally:
        await look.store.close()


@dataclass(frozen=True, slots=True)
class _Look:
    store: OssStore
    files: FileSource

    async def at_object(self, output: Output) -> StoredObject | Missing | Unknown:
        if output.oss_bucket != self.store.bucket:
            return Unknown(f"it is in the bucket {output.oss_bucket}, and OSS_BUCKET is {self.store.bucket}")
        try:
            return await self.store.head(output.oss_key) or Missing()
        except UploadError as error:
            return Unknown(error.detail)

    async def at_file(self, url: str) -> TempFile | Missing | Unknown:
        try:
            return await asyncio.to_thread(self._written, url)
        except TransientError as error:
            return Missing() if error.reason is Reason.SOURCE_GONE else Unknown(error.detail)
        except UploadError as error:
            return Unknown(error.detail)

    def _written(self, url: str) -> TempFile:
        with self.files.open(url) as file:
            return TempFile(datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC))
