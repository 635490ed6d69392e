"""The ways in: which request is answered by what."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, TypeVar

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ValidationError

from producer.api.errors import ApiError, unauthorized
from producer.api.jobs import Jobs, location
from producer.api.messages import Error, GenerateImage, Login, Problem, StoredImage, Token
from producer.api.metrics import Metrics
from producer.api.openapi import document
from producer.api.tokens import Tokens
from producer.api.tries import Tries
from producer.api.users import UsersFile
from producer.problems import problems_of
from schemas.environment import SettingsError
from schemas.events import MAX_BODY_BYTES

_HASHING_AT_ONCE: Final = 2  # each takes 64 MiB and a core
_KEY_CHARS: Final = 255
_REASON: Final = web.RequestKey("reason", str)
_UNCOUNTED: Final = ("/metrics", "/healthz", "/readyz")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=BaseModel)

_log = structlog.get_logger()


class Routes:
    """The ingress as an aiohttp application.

    Args:
        jobs: What takes images and knows of jobs.
        tokens: What knows callers.
        users: Who may log in; None: tokens come from elsewhere.
        token_lifetime_s: Seconds that a token lives that we issue.
    """

    def __init__(self, jobs: Jobs, tokens: Tokens, users: UsersFile | None, token_lifetime_s: int) -> None:
        self._jobs = jobs
        self._tokens = tokens
        self._users = users
        self._token_lifetime_s = token_lifetime_s
        self._metrics = Metrics()
        self._tries = Tries()
        self._hashing = asyncio.Semaphore(_HASHING_AT_ONCE)

    def application(self) -> web.Application:
        """All routes, with every answer from 400 on as JSON, and each request counted and logged."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._observed, _json_errors])
        app.router.add_post("/auth/login", self._login)
        app.router.add_post("/ai/generate-image", self._generate_image)
        app.router.add_get("/ai/jobs/{job_id}", self._job)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/metrics", self._exposition)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        return app

    async def _login(self, request: web.Request) -> web.Response:
        if self._users is None:
            detail = "tokens come from your own backend here (JWT_PUBLIC_KEY or JWT_JWKS_URL)"
            raise ApiError(HTTPStatus.NOT_FOUND, "login_disabled", detail)
        login = await _read(request, Login)
        address = request.remote or ""
        self._tries.count(address, login.email)
        async with self._hashing:
            user_id = await asyncio.to_thread(self._user_id, self._users, login)
        if user_id is None:
            raise ApiError(HTTPStatus.UNAUTHORIZED, "wrong_credentials", "the email or the password is wrong")
        self._tries.forgive(address, login.email)
        return _answer(HTTPStatus.OK, Token(token=self._tokens.issue(user_id, self._token_lifetime_s)))

    def _user_id(self, users: UsersFile, login: Login) -> str | None:
        try:
            return users.user_id(login.email, login.password)
        except SettingsError as error:
            _log.error("nobody can log in", error=str(error))
            detail = "nobody can log in now"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "users_unavailable", detail) from error

    async def _generate_image(self, request: web.Request) -> web.Response:
        user_id = await self._caller(request)
        key = request.headers.get("Idempotency-Key")
        if key is not None and not (0 < len(key) <= _KEY_CHARS and key.isprintable()):
            detail = f"Idempotency-Key must have 1 to {_KEY_CHARS} printable characters"
            raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_request", detail)
        answer = await self._jobs.create(user_id, await _read(request, GenerateImage), key)
        if isinstance(answer, StoredImage):
            return _answer(HTTPStatus.OK, answer)
        return _answer(HTTPStatus.ACCEPTED, answer, headers={"Location": location(answer.job_id)})

    async def _job(self, request: web.Request) -> web.Response:
        user_id = await self._caller(request)
        return _answer(HTTPStatus.OK, await self._jobs.get(user_id, request.match_info["job_id"]))

    async def _caller(self, request: web.Request) -> str:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized("the header Authorization: Bearer … is missing: POST /auth/login gives a token")
        return await self._tokens.user_of(token.strip())

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.json_response(document())

    async def _exposition(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        problems = await self._jobs.problems()
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        return web.json_response({"status": "not ready" if problems else "ready", "problems": problems}, status=status)

    @web.middleware
    async def _observed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        response = await handler(request)
        if request.path not in _UNCOUNTED:
            self._metrics.answered(response.status)
            resource = request.match_info.route.resource
            _log.info(
                "answered",
                method=request.method,
                route=resource.canonical if resource else "",
                status=response.status,
                duration_ms=round(1000 * (time.perf_counter() - started)),
                **({"reason": request[_REASON]} if _REASON in request else {}),
            )
        return response


@web.middleware
async def _json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 whatever it is, the caller gets an answer and the log its traceback
        answer = _answer_to(error)
        request[_REASON] = str(answer.reason)
        problem = Problem(error=Error(reason=answer.reason, detail=answer.detail))
        return _answer(answer.status, problem, headers=answer.headers)


def _answer_to(error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case web.HTTPRequestEntityTooLarge():
            detail = f"the body is larger than {MAX_BODY_BYTES} bytes: a large image needs an https: URL"
            return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", detail)
        case web.HTTPMethodNotAllowed():
            headers = {"Allow": error.headers.get("Allow", "")}
            detail = f"{error.method} is not understood here"
            return ApiError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", detail, headers=headers)
        case web.HTTPNotFound():
            return ApiError(HTTPStatus.NOT_FOUND, "not_found", "there is nothing here: see /openapi.json")
        case web.HTTPException():
            return ApiError(HTTPStatus(error.status), "invalid_request", error.reason)
        case _:
            _log.error("unexpected error", exc_info=error)
            return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected", "a defect of this program")


async def _read(request: web.Request, model: type[Body]) -> Body:
    """The request's body.

    Raises:
        ApiError: It is no JSON, or a value is missing or wrong.
        HTTPRequestEntityTooLarge: It is too large.
    """
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        problems = problems_of(error)
    except (web.RequestPayloadError, ConnectionError):
        problems = "its body is cut off, or not encoded as it says"
    raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_request", f"the request is invalid: {problems}")


def _answer(status: HTTPStatus, answer: BaseModel, headers: dict[str, str] | None = None) -> web.Response:
    body = answer.model_dump_json(by_alias=True).encode()
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
