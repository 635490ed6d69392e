"""What a dead letter says of itself."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the dead queue without its body.

    `failed_at` is none if nothing in the message tells it. The text is as it came: it is redacted when it is shown.
    """

    message_id: str
    event_id: str | None
    source: str | None
    fingerprint: str
    job_id: str | None
    user_id: str | None
    image_url: str | None
    happened_at: datetime | None
    reason: str
    detail: str
    attempts: int
    replays: int
    failed_at: datetime | None
    worker: str | None
    size_bytes: int
