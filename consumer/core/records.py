"""What is known of an event: from its message, and from the rows that say what was decided."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from schemas.events import ImageGenerated, ImageUploadFailed, derive_id
from schemas.reasons import Reason


def fingerprint(*parts: bytes) -> str:
    """32 hex digits that differ when any of the parts does; all but the last must be free of NUL."""
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).hexdigest()


def conflict_id(failure_id: UUID, fingerprint: str) -> UUID:
    """Id of a failure whose own id is taken by another event of the same source and id."""
    return derive_id(ImageUploadFailed.TYPE, str(failure_id), fingerprint)


@dataclass(frozen=True)
class Cause:
    """Who an event is, as far as its message tells; the event that ours are caused by.

    `fingerprint` tells an event from another one that carries the same source and id. `replays` counts how often
    an operator has sent the event through again; each run may fail once.
    """

    fingerprint: str
    replays: int = 0
    source: str | None = None
    event_id: str | None = None
    job_id: str | None = None
    user_id: str | None = None
    image_url: str | None = None

    @classmethod
    def of(cls, event: ImageGenerated, replays: int = 0) -> "Cause":
        """The identity of a well-formed event."""
        data = event.data
        return cls("", replays).naming(event.source, event.id, data.job_id, data.user_id, data.image_url)

    def naming(
        self,
        source: str | None,
        event_id: str | None,
        job_id: str | None,
        user_id: str | None,
        image_url: str | None,
    ) -> "Cause":
        """The same cause with what its message names; with job, user and URL the fingerprint is of those three.

        A message that is refused today and accepted by a later release thereby stays the same event.
        """
        mark = self.fingerprint
        if job_id is not None and user_id is not None and image_url is not None:
            mark = fingerprint(job_id.encode(), user_id.encode(), image_url.encode())
        return Cause(mark, self.replays, source, event_id, job_id, user_id, image_url)

    @cached_property
    def failure_id(self) -> UUID:
        """Id of the failed event, and of its row, if this run fails."""
        if self.source is None or self.event_id is None:
            return derive_id(ImageUploadFailed.TYPE, self.fingerprint, str(self.replays))
        return derive_id(ImageUploadFailed.TYPE, self.source, self.event_id, str(self.replays))

    @property
    def conflict_id(self) -> UUID:
        """The same for a run that fails because source and id belong to another event, which may have failed too."""
        return conflict_id(self.failure_id, self.fingerprint)


@dataclass(frozen=True, slots=True)
class Output:
    """A row of `job_outputs`: an object that is stored.

    `source_file` is the path that its event's `file:` URL names, for whoever finds the file.
    """

    id: UUID
    job_id: str
    user_id: str
    event_source: str
    event_id: str
    fingerprint: str
    oss_bucket: str
    oss_key: str
    url: str
    content_type: str
    size_bytes: int
    width: int
    height: int
    crc64: str
    prompt: str | None
    metadata: dict[str, Any] | None
    created_at: datetime
    expires_at: datetime | None
    source_file: str | None = None

    def is_gone(self, now: datetime) -> bool:
        """Whether its time has come, so that nobody may rely on its object any more."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class Failure:
    """A row of `job_failures`: one run of an event that ended without an object; `source_file` as `Output` has it."""

    id: UUID
    event_source: str | None
    event_id: str | None
    fingerprint: str
    job_id: str | None
    user_id: str | None
    image_url: str | None
    reason: Reason
    detail: str
    attempts: int
    replays: int
    failed_at: datetime
    source_file: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the rows say of an event's source and id.

    `owner` is the fingerprint of the event that came first under them, `failure` the row of this very run.
    """

    owner: str | None = None
    output: Output | None = None
    failure: Failure | None = None
