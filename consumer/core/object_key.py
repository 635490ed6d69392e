"""Where an image lies in the bucket."""

import hashlib
import re
from datetime import datetime, timedelta
from typing import Final

from schemas.events import EPOCH, ImageGenerated

_MILLISECOND: Final = timedelta(milliseconds=1)
_OURS: Final = re.compile(
    r"(?!.*\.\.)users/[A-Za-z0-9][A-Za-z0-9._@+|:-]{0,253}/jobs/[A-Za-z0-9][A-Za-z0-9._-]{0,127}/"
    r"image-(?P<ms>0|[1-9][0-9]{0,14})-[0-9a-f]{16}\.(?:jpg|png|webp|gif)"
)


def object_key(event: ImageGenerated, crc64: int, extension: str) -> str:
    """The object's key, derived: the same event with the same bytes overwrites itself, other bytes lie elsewhere.

    `crc64` is the CRC-64/XZ of the content, `extension` comes from the decoded format.
    """
    ms = (event.time - EPOCH) // _MILLISECOND
    digest = hashlib.blake2b(f"{event.source}\0{event.id}\0{crc64}".encode(), digest_size=8).hexdigest()
    return f"users/{event.data.user_id}/jobs/{event.data.job_id}/image-{ms}-{digest}.{extension}"


def happened_at(key: str) -> datetime | None:
    """The time of the event that an object key was derived from, to the millisecond; none if it is no key of ours."""
    match = _OURS.fullmatch(key)
    try:
        return EPOCH + int(match["ms"]) * _MILLISECOND if match else None
    except OverflowError:  # after 9999
        return None


def is_ours(key: str) -> bool:
    """Whether `object_key` may have made the key; others under the prefix are somebody else's."""
    return happened_at(key) is not None
