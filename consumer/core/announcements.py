"""Our own events, made from rows: their ids and times are derived, so that every copy is equal."""

from datetime import datetime, timedelta

from consumer.core.outcome import Hold, Retry
from consumer.core.ports import ObjectStore
from consumer.core.records import Cause, Failure, Output
from schemas.events import (
    CleanupCompleted,
    CleanupCompletedData,
    CleanupRequested,
    ImageOutputExpired,
    ImageOutputExpiredData,
    ImageUploadCompleted,
    ImageUploadCompletedData,
    ImageUploadDelayed,
    ImageUploadDelayedData,
    ImageUploadFailed,
    ImageUploadFailedData,
    derive_id,
)


def current_url(output: Output, store: ObjectStore) -> str:
    """Where to get the object now; one of another bucket, to which we have no key, is where it was put."""
    return store.link(output.oss_key) if output.oss_bucket == store.bucket else output.url


def completed(output: Output, image_url: str) -> ImageUploadCompleted:
    """The completion of a stored output; `image_url` is where to get the object now."""
    return ImageUploadCompleted(
        id=str(derive_id(ImageUploadCompleted.TYPE, output.event_source, output.event_id)),
        time=output.created_at,
        data=ImageUploadCompletedData(
            output_id=output.id,
            cause_id=output.event_id,
            cause_source=output.event_source,
            job_id=output.job_id,
            user_id=output.user_id,
            image_url=image_url,
            oss_bucket=output.oss_bucket,
            oss_key=output.oss_key,
            content_type=output.content_type,
            size_bytes=output.size_bytes,
            width=output.width,
            height=output.height,
            crc64=output.crc64,
            prompt=output.prompt,
            metadata=output.metadata,
            created_at=output.created_at,
            expires_at=output.expires_at,
        ),
    )


def expired(output: Output) -> ImageOutputExpired:
    """The news that an output is gone, whose `expires_at` is past."""
    if output.expires_at is None:
        raise ValueError(f"output {output.id} never expires")
    return ImageOutputExpired(
        id=str(derive_id(ImageOutputExpired.TYPE, output.event_source, output.event_id)),
        time=output.expires_at,
        data=ImageOutputExpiredData(
            output_id=output.id,
            job_id=output.job_id,
            user_id=output.user_id,
            oss_key=output.oss_key,
            expired_at=output.expires_at,
        ),
    )


def cleaned(request: CleanupRequested, data: CleanupCompletedData, now: datetime) -> CleanupCompleted:
    """The end of a cleanup that was asked for."""
    return CleanupCompleted(id=str(derive_id(CleanupCompleted.TYPE, request.source, request.id)), time=now, data=data)


def failed(failure: Failure) -> ImageUploadFailed | None:
    """The failed event of a row; none when the message named no job, for nobody could tell whom it concerns."""
    if failure.job_id is None:
        return None
    return ImageUploadFailed(
        id=str(failure.id),
        time=failure.failed_at,
        data=ImageUploadFailedData(
            cause_id=failure.event_id,
            cause_source=failure.event_source,
            job_id=failure.job_id,
            user_id=failure.user_id,
            reason=failure.reason,
            detail=failure.detail,
            attempts=failure.attempts,
            failed_at=failure.failed_at,
        ),
    )


def delayed(cause: Cause, outcome: Hold | Retry, attempt: int, now: datetime) -> ImageUploadDelayed | None:
    """A hint that the event waits; none when its message could not be read, which is never held or retried."""
    if cause.source is None or cause.event_id is None or cause.job_id is None or cause.user_id is None:
        return None
    next_try_at = now + timedelta(seconds=outcome.delay_s)
    return ImageUploadDelayed(
        # Every delay of an event is an event of its own.
        id=str(derive_id(ImageUploadDelayed.TYPE, cause.source, cause.event_id, next_try_at.isoformat())),
        time=now,
        data=ImageUploadDelayedData(
            cause_id=cause.event_id,
            cause_source=cause.source,
            job_id=cause.job_id,
            user_id=cause.user_id,
            reason=outcome.reason,
            attempt=attempt,
            held=isinstance(outcome, Hold),
            next_try_at=next_try_at,
        ),
    )
