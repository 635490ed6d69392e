"""What the ingress is sent, and what it answers."""

from typing import Annotated, Final, Literal, TypeAlias
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from schemas.events import ImageUrl, Text, Time
from schemas.reasons import Reason

MAX_PASSWORD_CHARS: Final = 1024


def _public(url: str) -> str:
    # A file: URL names a file of all generators' in TEMP_DIR, which a user may neither read nor have deleted.
    if url[:5].lower() == "file:":
        raise ValueError("must be an https:, http: or data: URL")
    return url


class _Request(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class _Answer(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, use_attribute_docstrings=True
    )


class Login(_Request):
    """Who wants a token."""

    email: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=254)]
    password: Annotated[str, StringConstraints(min_length=1, max_length=MAX_PASSWORD_CHARS)]


class Token(_Answer):
    """Goes into the header `Authorization: Bearer …`."""

    token: str


class GenerateImage(_Request):
    """An image that is to be stored for the caller."""

    prompt: Text | None = None
    """What it was generated from."""
    image_url: Annotated[ImageUrl, AfterValidator(_public)]
    """Where it is: an `https:`, `http:` or `data:` URL."""


class StoredImage(_Answer):
    """The image is stored."""

    image_url: str
    """Where it is now."""
    job_id: str
    output_id: UUID


class Pending(_Answer):
    """Neither stored nor failed yet, as far as is known."""

    job_id: str
    status: Literal["pending"] = "pending"


class Delayed(_Answer):
    """Something stood in the way; it will be tried again."""

    job_id: str
    status: Literal["delayed"] = "delayed"
    reason: Reason
    next_try_at: Time


class Stored(_Answer):
    """The image is stored."""

    job_id: str
    status: Literal["stored"] = "stored"
    image_url: str
    output_id: UUID
    created_at: Time
    expires_at: Time | None


class Error(_Answer):
    """Why something is not done."""

    reason: str
    """One word, of a closed list."""
    detail: str
    """One sentence for a human."""


class Failed(_Answer):
    """The image could not be stored, and is not tried again by itself."""

    job_id: str
    status: Literal["failed"] = "failed"
    error: Error


class Problem(_Answer):
    """The body of every answer from 400 on."""

    error: Error


Job: TypeAlias = Annotated[Pending | Delayed | Stored | Failed, Field(discriminator="status")]
"""What is known of a job."""
