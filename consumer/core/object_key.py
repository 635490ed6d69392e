"""Where an image lies in the bucket."""

import hashlib
from datetime import timedelta
from typing import Final

from schemas.events import EPOCH, ImageGenerated

_MILLISECOND: Final = timedelta(milliseconds=1)


def object_key(event: ImageGenerated, crc64: int, extension: str) -> str:
    """The object's key, derived: the same event with the same bytes overwrites itself, other bytes lie elsewhere.

    `crc64` is the CRC-64/XZ of the content, `extension` comes from the decoded format.
    """
    ms = (event.time - EPOCH) // _MILLISECOND
    digest = hashlib.blake2b(f"{event.source}\0{event.id}\0{crc64}".encode(), digest_size=8).hexdigest()
    return f"users/{event.data.user_id}/jobs/{event.data.job_id}/image-{ms}-{digest}.{extension}"
