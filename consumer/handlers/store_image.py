"""The five steps from an event to a stored image."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from consumer.core.errors import UploadError
from consumer.core.object_key import object_key
from consumer.core.outcome import Duplicate, Failed, Stored, decided
from consumer.core.ports import Format, Image, ImageSource, Inspector, Meter, ObjectStore, Records
from consumer.core.records import Cause, Output, Recorded
from consumer.core.source_file import source_file
from schemas.events import ImageGenerated, output_id

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoreImage:
    """Handles `image.generated`."""

    source: ImageSource
    inspect: Inspector
    store: ObjectStore
    records: Records
    meter: Meter
    retention: timedelta | None

    async def __call__(self, event: ImageGenerated, cause: Cause) -> Stored | Duplicate | Failed:
        """The event has its object and its row, or ends as the rows had decided before.

        Raises:
            UploadError: with the blame. The object may exist without its row; another try overwrites it.
        """
        if outcome := decided(cause, await self.records.find(cause)):
            return outcome
        async with AsyncExitStack() as stack:
            with self.meter.stage("fetch"):
                image = await stack.enter_async_context(self.source.open(event.data.image_url))
            with self.meter.stage("inspect"):
                form = await self.inspect(image)
            key = object_key(event, image.crc64, form.extension)
            with self.meter.stage("store"):
                await self.store.put(key, image, content_type=form.content_type, event_id=event.id)
        output = self._output(event, cause, key, image, form)
        with self.meter.stage("record"):
            recorded = await self.records.record(output)
        if recorded == output:
            return Stored(output)
        # Another delivery of this event, or another event with its name, was quicker.
        is_named = (recorded.oss_bucket, recorded.oss_key) == (output.oss_bucket, key)
        if not is_named or recorded.is_gone(datetime.now(UTC)):
            await self._discard(key)
        return decided(cause, Recorded(recorded.fingerprint, recorded)) or Duplicate(recorded)

    async def _discard(self, key: str) -> None:
        """The object, which no row wants any more, is gone; one that cannot be deleted is an orphan, and logged."""
        try:
            await self.store.delete(key)
        except UploadError as error:
            _log.warning("an object without a row was not deleted", key=key, error=str(error))

    def _output(self, event: ImageGenerated, cause: Cause, key: str, image: Image, form: Format) -> Output:
        now = datetime.now(UTC)
        expiries = [event.data.expires_at, now + self.retention if self.retention else None]
        return Output(
            id=output_id(event.source, event.id),
            job_id=event.data.job_id,
            user_id=event.data.user_id,
            event_source=event.source,
            event_id=event.id,
            fingerprint=cause.fingerprint,
            oss_bucket=self.store.bucket,
            oss_key=key,
            url=self.store.url(key),
            content_type=form.content_type,
            size_bytes=image.size_bytes,
            width=form.width,
            height=form.height,
            crc64=str(image.crc64),
            prompt=event.data.prompt,
            metadata=event.data.metadata,
            created_at=now,
            expires_at=min((expiry for expiry in expiries if expiry), default=None),
            source_file=source_file(event.data.image_url),
        )
