"""Ids of jobs that say by themselves whose they are.

A job that is neither stored nor failed has no row, and an ingress that was just started remembers nothing. Its id
alone must tell whether a user may ask about it, so a half of it is a digest of the other half and the user.
It is no secret: who guesses one can only ask about jobs of his own.
"""

import hashlib
from secrets import token_hex
from typing import Final

from pydantic import TypeAdapter, ValidationError

from schemas.events import JobId

_BYTES: Final = 8
_JOB_ID: Final[TypeAdapter[str]] = TypeAdapter(JobId)


def new_job_id(user_id: str, idempotency_key: str | None = None) -> str:
    """An id for a job of the user's: always the same one for the same key, else one that was never used."""
    nonce = token_hex(_BYTES) if idempotency_key is None else _digest("key", user_id, idempotency_key)
    return f"{nonce}-{_digest('job', user_id, nonce)}"


def is_job_id(text: str) -> bool:
    """Whether any job may have this id, ours or a generator's."""
    try:
        _JOB_ID.validate_python(text)
    except ValidationError:
        return False
    return True


def is_of(user_id: str, job_id: str) -> bool:
    """Whether the id was made for this user."""
    nonce, _, mark = job_id.partition("-")
    return mark == _digest("job", user_id, nonce)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=_BYTES).hexdigest()
