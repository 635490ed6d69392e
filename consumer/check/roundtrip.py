"""The quick test: one image goes through a running worker, and each of its traces is looked at."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aiormq.exceptions import PublishError
from PIL import Image as Pillow

from consumer.adapters import rabbit
from consumer.check.finding import Finding
from consumer.check.shell import Shell
from consumer.check.traces import ROUNDTRIP, Traces
from consumer.core.errors import BrokerError, StartError
from consumer.settings import WorkerSettings
from schemas import topology
from schemas.events import (
    CONTENT_TYPE,
    ImageGenerated,
    ImageGeneratedData,
    ImageUploadCompleted,
    ImageUploadDelayed,
    ImageUploadFailed,
)

_NOBODY: Final = (
    "no worker takes deliveries: start one, then check again; one that runs takes none while a dependency fails its "
    "probe, which its /readyz names"
)
_SOURCE: Final = "/image-uploads/check"
_USER: Final = "image-uploads-check"
_LIFE: Final = timedelta(hours=1)
_NEWS: Final = {model.TYPE: model for model in (ImageUploadCompleted, ImageUploadFailed, ImageUploadDelayed)}
_News: TypeAlias = ImageUploadCompleted | ImageUploadFailed | ImageUploadDelayed


async def look(settings: WorkerSettings, shell: Shell, timeout_s: float) -> AsyncIterator[Finding]:
    """A finding for each step of one image's way; its object and row expire an hour later."""
    try:
        async with _Wire.opened(settings.amqp_url.get_secret_value()) as wire:
            async for finding in _travel(wire, settings, shell, timeout_s):
                yield finding
    except (*rabbit.LOST, StartError, BrokerError) as error:
        yield ROUNDTRIP.wrong(f"RabbitMQ was lost on the way: {error}", shell.run("check", "--roundtrip"))


async def _travel(wire: "_Wire", settings: WorkerSettings, shell: Shell, timeout_s: float) -> AsyncIterator[Finding]:
    if not await wire.workers():
        yield ROUNDTRIP.wrong(_NOBODY, shell.run("worker"))
        return
    picture = _picture()
    file, event = _placed(picture, settings.temp_dir)
    began = time.monotonic()
    try:
        await wire.publish(event)
    except PublishError:
        file.unlink()
        text = f"no queue is bound to {topology.EXCHANGE} for {event.type}"
        yield ROUNDTRIP.wrong(text, shell.run("declare"))
        return
    news = await wire.news(event, timeout_s)
    took = f"{time.monotonic() - began:.1f} s"
    match news:
        case ImageUploadCompleted():
            yield ROUNDTRIP.ok(f"a worker took {event.type} of job {event.data.job_id}, and announced it after {took}")
            async for finding in Traces(settings, shell, event, picture, news.data).findings(file):
                yield finding
        case ImageUploadFailed():
            file.unlink(missing_ok=True)  # a worker with another TEMP_DIR cannot
            yield ROUNDTRIP.wrong(f"the worker failed it after {took}: {news.data.reason}: {news.data.detail}")
        case _:
            yield _no_outcome(news, shell, timeout_s)


def _no_outcome(news: ImageUploadDelayed | None, shell: Shell, timeout_s: float) -> Finding:
    patience = shell.run("check", "--roundtrip", "--timeout", f"{10 * timeout_s:g}")
    if news is None:
        return ROUNDTRIP.wrong(f"no worker has announced anything within {timeout_s:g} s: it may be busy", patience)
    text = f"the worker delays it by {news.data.reason}, next try at {news.data.next_try_at.astimezone():%H:%M:%S}"
    if news.data.reason == "source_gone":
        text += ": its TEMP_DIR is not this one"
    return ROUNDTRIP.wrong(f"{text}; is it started with these settings?", patience)


def _picture() -> bytes:
    """A PNG of one pixel."""
    file = io.BytesIO()
    Pillow.new("RGB", (1, 1), "firebrick").save(file, "PNG")
    return file.getvalue()


def _placed(picture: bytes, directory: Path) -> tuple[Path, ImageGenerated]:
    """The picture's file in TEMP_DIR, and the event of it."""
    now = datetime.now(UTC)
    event_id = str(uuid4())
    file = directory / f"image-uploads-check-{event_id}.png"
    try:
        file.write_bytes(picture)
    except OSError:
        file.unlink(missing_ok=True)
        raise
    data = ImageGeneratedData(
        job_id=f"check-{now:%Y%m%dT%H%M%S}", user_id=_USER, image_url=file.as_uri(), expires_at=now + _LIFE
    )
    return file, ImageGenerated(id=event_id, source=_SOURCE, time=now, data=data)


@dataclass(frozen=True, slots=True)
class _Wire:
    """A channel that hears what becomes of events from when it was opened."""

    channel: AbstractChannel
    heard: asyncio.Queue[AbstractIncomingMessage]

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator["_Wire"]:
        """A wire on a connection of its own."""
        connection = await rabbit.connect(url, "image-uploads check --roundtrip")
        try:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            heard: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
            queue = await channel.declare_queue(exclusive=True, arguments={"x-queue-type": "classic"})
            for routing_key in _NEWS:
                await queue.bind(topology.EXCHANGE, routing_key)
            await queue.consume(heard.put, no_ack=True)
            yield cls(channel, heard)
        finally:
            await rabbit.close(connection)

    async def workers(self) -> int:
        """How many consumers the work queue has."""
        queue = await self.channel.declare_queue(topology.WORK_QUEUE, passive=True)
        return queue.declaration_result.consumer_count or 0

    async def publish(self, event: ImageGenerated) -> None:
        """The broker has the event.

        Raises:
            PublishError: no queue took it.
        """
        message = aio_pika.Message(
            event.body(),
            content_type=CONTENT_TYPE,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=event.id,
            correlation_id=event.data.job_id,
        )
        exchange = await self.channel.get_exchange(topology.EXCHANGE, ensure=False)
        await exchange.publish(message, event.type, mandatory=True, timeout=rabbit.CONNECT_TIMEOUT_S)

    async def news(self, event: ImageGenerated, timeout_s: float) -> _News | None:
        """The event's outcome; if there is none in time, the last that was heard of it, if anything."""
        latest: _News | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while latest is None or isinstance(latest, ImageUploadDelayed):
                    latest = _news_of(event, await self.heard.get()) or latest
        except TimeoutError:
            pass
        return latest


def _news_of(event: ImageGenerated, message: AbstractIncomingMessage) -> _News | None:
    try:
        data = json.loads(message.body)["data"]
        if (data["causeSource"], data["causeId"]) == (event.source, event.id):
            return _NEWS[message.routing_key or ""].model_validate_json(message.body)
    except (ValueError, LookupError, TypeError):
        pass
    return None
