"""What a stored image has left behind: URL, object, row, and no temp file."""

import asyncio
import stat
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastcrc import crc64

from consumer.adapters import postgres
from consumer.adapters.oss import OssStore
from consumer.adapters.postgres_records import PostgresRecords
from consumer.check.finding import Finding, Subject
from consumer.check.shell import Shell, path
from consumer.core.errors import UploadError
from consumer.core.records import Cause
from consumer.settings import WorkerSettings
from schemas.events import ImageGenerated, ImageUploadCompletedData

ROUNDTRIP: Final = Subject("roundtrip")
_DISCARD_TIMEOUT_S: Final = 5  # the file goes right after the completion was sent


class Traces:
    """Those of one image, whose completion was heard."""

    def __init__(
        self,
        settings: WorkerSettings,
        shell: Shell,
        event: ImageGenerated,
        picture: bytes,
        completed: ImageUploadCompletedData,
    ) -> None:
        self._settings = settings
        self._shell = shell
        self._event = event
        self._picture = picture
        self._completed = completed

    async def findings(self, file: Path) -> AsyncIterator[Finding]:
        """One for each trace."""
        store = OssStore(self._settings, timeout_s=self._settings.oss_timeout_s)
        try:
            yield self._url(store)
            yield await self._object(store)
        finally:
            await store.close()
        yield await self._row()
        yield await self._temp_file(file)

    def _url(self, store: OssStore) -> Finding:
        shown = self._completed.image_url.partition("?")[0]  # a signature would open it to whoever reads this
        if shown.startswith((f"{self._settings.base_url}/", store.link(self._completed.oss_key).partition("?")[0])):
            host = urlsplit(shown).hostname or ""
            whose = "OSS itself" if host.endswith(".aliyuncs.com") else "a CDN or a domain of your own"
            return ROUNDTRIP.ok(f"the URL leads to {whose}: {shown}")
        theirs = shown.removesuffix(store.url(self._completed.oss_key).removeprefix(self._settings.base_url))
        text = (
            f"the URL is {shown}, not under {self._settings.base_url}: the worker has another OSS_BASE_URL "
            "(restart it, or take its value over)"
        )
        return ROUNDTRIP.wrong(text, self._shell.set(OSS_BASE_URL=theirs))

    async def _object(self, store: OssStore) -> Finding:
        try:
            status, body, _ = await store.read(self._completed.image_url)
        except UploadError as error:
            return ROUNDTRIP.wrong(f"the object's URL does not answer: {error.detail}", self._shell.ask("OSS_BASE_URL"))
        if status == HTTPStatus.FORBIDDEN:
            mend = self._shell.set(OSS_URL_EXPIRES_S="3600")
            return ROUNDTRIP.warning(
                "the object's URL answers 403: the bucket is private; restart the worker with", mend
            )
        if status != HTTPStatus.OK or body != self._picture or self._completed.crc64 != str(crc64.xz(body)):
            text = f"the object's URL answers {status}, and not with the bytes that were sent"
            return ROUNDTRIP.wrong(text, self._shell.ask("OSS_BASE_URL"))
        return ROUNDTRIP.ok("the object is there, byte-identical")

    async def _row(self) -> Finding:
        pool = await postgres.try_pool(self._settings.database_url.get_secret_value())
        try:
            output = (await PostgresRecords(pool).find(Cause.of(self._event))).output
        finally:
            await postgres.close_pool(pool)
        if output is None:
            text = "the row is not there: the worker writes into another database"
            return ROUNDTRIP.wrong(text, self._shell.ask("DATABASE_URL"))
        return ROUNDTRIP.ok(f"the row is there: job_outputs.id = {output.id}")

    async def _temp_file(self, file: Path) -> Finding:
        deadline = time.monotonic() + _DISCARD_TIMEOUT_S
        while await asyncio.to_thread(file.exists):
            if time.monotonic() > deadline:
                return _not_discarded(file)
            await asyncio.sleep(0.05)
        return ROUNDTRIP.ok("the temp file is gone")


def _not_discarded(file: Path) -> Finding:
    is_sticky = file.parent.stat().st_mode & stat.S_ISVTX
    text = f"the temp file {file} is still there: the worker's log says why"
    return ROUNDTRIP.wrong(text, f"sudo chmod -t {path(file.parent)}" if is_sticky else None)
