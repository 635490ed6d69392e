"""What goes wrong, as status and JSON: `{"error": {"reason", "detail"}}`."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from schemas.reasons import Reason

ApiReason: TypeAlias = Literal[
    "invalid_request",
    "too_large",
    "unauthorized",
    "wrong_credentials",
    "login_disabled",
    "too_many_tries",
    "not_found",
    "method_not_allowed",
    "expired",
    "broker_unavailable",
    "database_unavailable",
    "keys_unavailable",
    "users_unavailable",
    "unexpected",
]
"""Reasons of the ingress' own; an event that failed is told with one of `Reason`."""

STATUS_OF: Final[Mapping[Reason, HTTPStatus]] = MappingProxyType(
    {
        Reason.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Reason.SOURCE_UNAVAILABLE: HTTPStatus.BAD_GATEWAY,
        Reason.STORAGE_REFUSED: HTTPStatus.BAD_GATEWAY,
        Reason.STORAGE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.DATABASE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.TIMED_OUT: HTTPStatus.GATEWAY_TIMEOUT,
        Reason.CRASH_LOOP: HTTPStatus.INTERNAL_SERVER_ERROR,
        Reason.UNEXPECTED: HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)
"""The status of a failed event; of all others the request is to blame: 422."""


class ApiError(Exception):
    """Ends a request with this status; `detail` is one sentence that holds no secret."""

    def __init__(
        self,
        status: HTTPStatus,
        reason: ApiReason | Reason,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = dict(headers or {})


def failed(reason: Reason, detail: str) -> ApiError:
    """The answer for an event that failed."""
    return ApiError(STATUS_OF.get(reason, HTTPStatus.UNPROCESSABLE_ENTITY), reason, for_users(reason, detail))


def expired() -> ApiError:
    """The answer for an image that was stored once, and whose time is over."""
    return ApiError(HTTPStatus.GONE, "expired", "the image has expired and is no longer there")


def for_users(reason: Reason, detail: str) -> str:
    """The detail of a failure, unless it speaks of our network, which is the operator's business."""
    return "the image may not be fetched from there" if reason is Reason.SOURCE_FORBIDDEN else detail


def unauthorized(detail: str) -> ApiError:
    """The answer for a token that is missing, wrong or expired."""
    return ApiError(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
