"""Jobs: an image is announced to the worker, and what becomes of it is told."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

import structlog

from producer.api.delays import Delays
from producer.api.errors import ApiError, expired, failed
from producer.api.job_id import is_job_id, is_of, new_job_id
from producer.api.messages import Delayed, Failed, GenerateImage, Job, Pending, Stored, StoredImage
from producer.api.repeatable import Repeatable
from producer.api.rows import Rows
from producer.connection import BrokerError
from producer.outcome import NoOutcomeError, Outcome, Outcomes
from producer.publisher import Publisher, PublishError, image_generated
from schemas.events import MAX_BODY_BYTES, ImageGenerated, ImageOutputExpired, ImageUploadCompleted
from schemas.reasons import Reason

SOURCE: Final = "/image-uploads/api"
"""Who speaks in the events that the ingress publishes."""

_BROKER_TIMEOUT_S: Final = 5
_PAUSE_S: Final = 1.0

_log = structlog.get_logger()


class Jobs:
    """The broker and the rows, as the ingress sees them; `run` must be running.

    Args:
        amqp_url: RabbitMQ, `amqp://` or `amqps://`.
        rows: What the worker has decided.
        wait_s: Seconds that a request waits for its image.
    """

    def __init__(self, amqp_url: str, rows: Rows, wait_s: float) -> None:
        self._amqp_url = amqp_url
        self._rows = rows
        self._wait_s = wait_s
        self._publisher = Publisher(amqp_url, timeout_s=_BROKER_TIMEOUT_S)
        self._outcomes: Outcomes | None = None
        self._delays = Delays()
        self._repeatable = Repeatable()

    async def run(self) -> None:
        """Outcomes are heard of, over a new connection whenever one is lost, until this is cancelled.

        Requests that wait then, or whose connection is lost, are answered with what is known so far.
        """
        while True:
            try:
                async with Outcomes(
                    self._amqp_url, on_delayed=self._delays.remember, timeout_s=_BROKER_TIMEOUT_S
                ) as outcomes:
                    self._outcomes = outcomes
                    _log.info("listening for outcomes")
                    await outcomes.lost()
                    _log.warning("the connection to RabbitMQ was lost")
            except BrokerError as error:
                _log.warning("waiting for RabbitMQ", error=str(error))
            finally:
                self._outcomes = None
            await asyncio.sleep(_PAUSE_S)

    async def close(self) -> None:
        """The publisher's connection is closed."""
        await self._publisher.__aexit__(None, None, None)

    async def problems(self) -> dict[str, str]:
        """One sentence for each neighbour that is away."""
        problems = {}
        if self._outcomes is None:
            problems["broker"] = "RabbitMQ is not connected"
        try:
            await self._rows.probe()
        except ApiError as error:
            problems["database"] = error.detail
        return problems

    async def create(
        self, user_id: str, request: GenerateImage, idempotency_key: str | None
    ) -> StoredImage | Pending | Delayed:
        """The broker has the event of the user's image; what has become of it when the wait is over.

        Raises:
            ApiError: The event failed, or its image is stored no more, or it is not published; the last one's sentence
                says whether that is certain.
        """
        event = self._event(user_id, request, idempotency_key)
        job_id = event.data.job_id
        in_doubt = idempotency_key is not None  # the same request may have been made before
        with self._outcome_of(event, in_doubt=in_doubt) as outcome:
            await self._publish(event, in_doubt=in_doubt)
            news = await self._wait(outcome)
        match news:
            case ImageUploadCompleted(data=data):
                return StoredImage(image_url=data.image_url, job_id=job_id, output_id=data.output_id)
            case None:
                return await self._so_far(user_id, job_id)
            case ImageOutputExpired():
                raise expired()
            case _:
                raise failed(news.data.reason, news.data.detail)

    async def get(self, user_id: str, job_id: str) -> Job:
        """What is known of the user's job.

        Raises:
            ApiError: 404 if the user has none of this id, 410 if its image has expired, 503 if nothing can be known.
        """
        if not is_job_id(job_id):
            raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "you have no such job")
        job = await self._rows.job(user_id, job_id) or self._delayed(user_id, job_id)
        if job is None and not is_of(user_id, job_id):
            raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "you have no such job")
        return job or Pending(job_id=job_id)

    def _event(self, user_id: str, request: GenerateImage, idempotency_key: str | None) -> ImageGenerated:
        job_id = new_job_id(user_id, idempotency_key)
        return image_generated(
            id=job_id,
            source=SOURCE,
            time=None if idempotency_key is None else self._repeatable.time_of(job_id, request),
            job_id=job_id,
            user_id=user_id,
            image_url=request.image_url,
            prompt=request.prompt,
        )

    @contextmanager
    def _outcome_of(self, event: ImageGenerated, *, in_doubt: bool) -> Iterator["asyncio.Future[Outcome]"]:
        if self._outcomes is None:
            raise _unavailable(event, in_doubt=in_doubt)
        with self._outcomes.of(event) as outcome:
            yield outcome

    async def _publish(self, event: ImageGenerated, *, in_doubt: bool) -> None:
        try:
            await self._publisher.publish_event(event)
        except ValueError as error:
            self._repeatable.forget(event.id)
            detail = (
                f"the request makes an event of more than {MAX_BODY_BYTES} bytes: a large image needs an https: URL"
            )
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", detail) from error
        except PublishError as error:
            _log.warning("not published", error=str(error))
            raise _unavailable(event, in_doubt=in_doubt or error.broker_may_have_it) from error

    async def _wait(self, outcome: "asyncio.Future[Outcome]") -> Outcome | None:
        """The outcome; none when the wait is over, or the connection is lost or closed."""
        await asyncio.wait((outcome,), timeout=self._wait_s)
        try:
            return outcome.result() if outcome.done() else None
        except NoOutcomeError:
            return None

    async def _so_far(self, user_id: str, job_id: str) -> StoredImage | Pending | Delayed:
        try:
            job = await self._rows.job(user_id, job_id)
        except ApiError as error:
            if error.reason == "expired":
                raise
            job = None  # the event is published, and that is what the answer must say
        match job:
            case Stored():
                return StoredImage(image_url=job.image_url, job_id=job_id, output_id=job.output_id)
            case Failed():
                raise failed(Reason(job.error.reason), job.error.detail)
            case _:
                return self._delayed(user_id, job_id) or Pending(job_id=job_id)

    def _delayed(self, user_id: str, job_id: str) -> Delayed | None:
        news = self._delays.of(user_id, job_id)
        if news is None:
            return None
        return Delayed(job_id=job_id, reason=news.data.reason, next_try_at=news.data.next_try_at)


def _unavailable(event: ImageGenerated, *, in_doubt: bool) -> ApiError:
    # The log has the reason: addresses of ours are nothing for users.
    headers = {"Retry-After": "5"}
    detail = "the image is not accepted: RabbitMQ cannot take it now"
    if in_doubt:
        headers["Location"] = location(event.data.job_id)
        detail = "the image may or may not be accepted: look at Location, or repeat with the same Idempotency-Key"
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "broker_unavailable", detail, headers=headers)


def location(job_id: str) -> str:
    """Where a job is to be asked for."""
    return f"/ai/jobs/{job_id}"
