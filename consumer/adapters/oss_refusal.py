"""What OSS, or something between us and it, answers instead of what was asked for: whose fault it is."""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Self
from xml.etree import ElementTree as ET

import aiohttp

from consumer.core.errors import DependencyError, PermanentError, UploadError
from consumer.core.redact import redact
from schemas.reasons import Reason

_WORDS: Final = "x-oss-err"  # the error XML in base64, where an answer has no body
_BAD_REQUEST: Final = ("InvalidObjectName", "InvalidArgument", "EntityTooLarge")
"""What OSS says of the one object; all else that it refuses, it would refuse of any.
Source: OSS API reference, "PutObject", error codes."""
_OF_SIGNATURES: Final = "0002-"
"""How the finer code (EC) of a refused signature begins: one in the wrong region is an InvalidArgument, and nobody's
object. Source: OSS documentation, "0002-00000226"."""
_TROUBLE_STATUSES: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_TROUBLE_CODES: Final = ("RequestTimeout", "LimitExceeded")  # whatever status they come with


class StorageRefusedError(DependencyError):
    """The service answers, and refuses what it would refuse of any object.

    `code` is the answer's own. `endpoint` is the host where the bucket is, when we ask in another region.
    """

    def __init__(self, refusal: "Refusal") -> None:
        super().__init__("storage", Reason.STORAGE_REFUSED, refusal.detail)
        self.code = refusal.code
        self.endpoint = refusal.endpoint
        self.of_signature = refusal.ec.startswith(_OF_SIGNATURES)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not what was asked for; the service's words are in the elements of its error XML."""

    status: int
    code: str
    message: str
    ec: str
    endpoint: str

    @classmethod
    def of(cls, status: int, elements: Mapping[str, str | None]) -> Self:
        """The refusal with these elements."""
        code, message, ec, endpoint = (elements.get(name) or "" for name in ("Code", "Message", "EC", "Endpoint"))
        return cls(status, code, message, ec, endpoint)

    @classmethod
    def read(cls, status: int, body: bytes) -> Self:
        """The refusal with this body, which is no XML if something between us and the service speaks."""
        try:
            document = ET.fromstring(body)  # noqa: S314 from the bucket's own service, and bounded by it
        except ET.ParseError:
            return cls.of(status, {})
        return cls.of(status, {element.tag: element.text for element in document})

    @property
    def detail(self) -> str:
        """One line for a human."""
        return redact(f"OSS answered {self.status} {self.code}: {self.message}")

    def blame(self) -> UploadError:
        """The error that it is, with the blame."""
        trouble = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR or self.status in _TROUBLE_STATUSES
        if trouble or self.code.endswith(_TROUBLE_CODES):
            return DependencyError("storage", Reason.STORAGE_UNAVAILABLE, self.detail)
        if self.code in _BAD_REQUEST and not self.ec.startswith(_OF_SIGNATURES):
            return PermanentError(Reason.STORAGE_REFUSED, self.detail)
        return StorageRefusedError(self)


async def refusal(response: aiohttp.ClientResponse) -> UploadError:
    """The error that an answer with a status of its kind is."""
    try:
        words = await response.read() or b64decode(response.headers.get(_WORDS, ""))
    except ValueError:
        words = b""
    return Refusal.read(response.status, words).blame()


def no_answer(error: Exception) -> DependencyError:
    """The error that no answer is, or half of one."""
    detail = redact(f"OSS did not answer: {type(error).__name__} {error}".strip())
    return DependencyError("storage", Reason.STORAGE_UNAVAILABLE, detail)
