"""Requests that may be repeated with their Idempotency-Key."""

import hashlib
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final

from producer.api.errors import failed
from producer.api.messages import GenerateImage
from schemas.reasons import Reason

_MOST: Final = 10_000


class Repeatable:
    """When the last ten thousand of them were made first: the event of a repeated one is the same to the letter.

    What is forgotten, or was made elsewhere, is an event of another time with the same id: a duplicate, as well.
    """

    def __init__(self) -> None:
        self._made: OrderedDict[str, tuple[bytes, datetime]] = OrderedDict()

    def time_of(self, job_id: str, request: GenerateImage) -> datetime:
        """When the request was made first.

        Raises:
            ApiError: 422, another request was made with its key.
        """
        digest = hashlib.blake2b(request.model_dump_json().encode(), digest_size=16).digest()
        first, time = self._made.setdefault(job_id, (digest, datetime.now(UTC)))
        self._made.move_to_end(job_id)
        if len(self._made) > _MOST:
            self._made.popitem(last=False)
        if first != digest:
            raise failed(Reason.CONFLICTING_EVENT, "this Idempotency-Key was used for another request")
        return time

    def forget(self, job_id: str) -> None:
        """The request was refused for good, and its key may be used for a better one."""
        self._made.pop(job_id, None)
