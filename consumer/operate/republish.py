"""Completions and failures, announced again from their rows."""

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from consumer.adapters.postgres_history import PostgresHistory, Span
from consumer.core.announcements import completed, failed
from consumer.core.records import Failure, Output
from schemas.events import ImageUploadCompleted, ImageUploadFailed

Announcement: TypeAlias = ImageUploadCompleted | ImageUploadFailed
Record: TypeAlias = Output | Failure


async def announcements(
    history: PostgresHistory, span: Span, link: Callable[[Output], str]
) -> AsyncIterator[Announcement]:
    """The events of the rows as they were announced before, in the order in which they were committed.

    What is committed from now on is left out: whoever writes it announces it. `link` says where the object is to be
    had now.
    """
    last = await history.last_number()
    async for record in _merged(history.outputs(span, last), history.failures(span, last)):
        event = completed(record, link(record)) if isinstance(record, Output) else failed(record)
        if event is not None:
            yield event


async def _merged(*sources: AsyncIterator[tuple[int, Record]]) -> AsyncIterator[Record]:
    """All of them in the order of their common numbers."""
    heads = {source: head for source in sources if (head := await anext(source, None))}
    while heads:
        source = min(heads, key=lambda source: heads[source][0])
        yield heads.pop(source)[1]
        if head := await anext(source, None):
            heads[source] = head
