"""Completions and failures, announced again from their rows."""

import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeAlias

from consumer.adapters.oss import OssStore
from consumer.adapters.postgres_history import PostgresHistory, Span
from consumer.adapters.rabbit_publisher import RabbitPublisher
from consumer.core.announcements import completed, current_url, failed
from consumer.core.ports import Broker
from consumer.core.records import Failure, Output
from consumer.operate.display import progress
from consumer.operate.pace import paced
from consumer.settings import OssSettings, RepublishSettings
from schemas.events import ImageUploadCompleted, ImageUploadFailed

Announcement: TypeAlias = ImageUploadCompleted | ImageUploadFailed
Record: TypeAlias = Output | Failure


@dataclass(frozen=True, slots=True)
class Order:
    """Which rows, at most how many of them, how quickly, and whether for real."""

    span: Span
    limit: int | None = None
    per_second: float | None = None
    is_rehearsal: bool = False


@dataclass(slots=True)
class Tally:
    """What was announced, as far as it came."""

    completions: int = 0
    failures: int = 0

    @property
    def done(self) -> int:
        """How many of both."""
        return self.completions + self.failures

    def add(self, event: Announcement) -> None:
        """The event is one more."""
        if isinstance(event, ImageUploadCompleted):
            self.completions += 1
        else:
            self.failures += 1


async def republish(settings: RepublishSettings, oss: OssSettings | None, order: Order, tally: Tally) -> None:
    """The events of the rows that are meant have been announced again; with `oss`, the links are presigned anew.

    Raises:
        StartError: RabbitMQ or PostgreSQL refuses us.
        BrokerError, DependencyError: one of them is away; what the tally counts was announced.
    """
    broker = RabbitPublisher(settings.amqp_url.get_secret_value(), "image-uploads republish")
    store = OssStore(oss, timeout_s=oss.oss_timeout_s) if oss else None
    try:
        async with PostgresHistory.opened(settings.database_url.get_secret_value()) as history:
            await announce_again(history, broker, order, tally, _presigned(store) if store else _as_it_was)
    finally:
        await broker.close()
        if store:
            await store.close()


async def announce_again(
    history: PostgresHistory, broker: Broker, order: Order, tally: Tally, link: Callable[[Output], str]
) -> None:
    """The rows' events are announced as they were before, in the order in which the rows were committed.

    What is committed from now on is left out: whoever writes it announces it.
    """
    last = await history.last_number()
    total = min(await history.count(order.span, last), order.limit or sys.maxsize)
    with progress("announcements", total) as show:

        async def announce(event: Announcement) -> None:
            if not order.is_rehearsal:
                await broker.announce(event)
            tally.add(event)
            show(tally.done)

        records = _merged(history.outputs(order.span, last), history.failures(order.span, last))
        await paced(_announcements(records, link, total), announce, order.per_second)


async def _announcements(
    records: AsyncIterator[Record], link: Callable[[Output], str], limit: int
) -> AsyncIterator[Announcement]:
    async for record in records:
        if not limit:
            return
        event = completed(record, link(record)) if isinstance(record, Output) else failed(record)
        if event is not None:
            limit -= 1
            yield event


def _as_it_was(output: Output) -> str:
    return output.url


def _presigned(store: OssStore) -> Callable[[Output], str]:
    return lambda output: current_url(output, store)


async def _merged(*sources: AsyncIterator[tuple[int, Record]]) -> AsyncIterator[Record]:
    """All of them in the order of their common numbers."""
    heads = {source: head for source in sources if (head := await anext(source, None))}
    while heads:
        source = min(heads, key=lambda source: heads[source][0])
        yield heads.pop(source)[1]
        if head := await anext(source, None):
            heads[source] = head
