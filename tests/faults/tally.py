"""What became of a contestant's events, counted alike for everybody: in rows, objects, messages and files."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import aio_pika
import asyncpg
import oss2
from aio_pika.abc import AbstractChannel
from oss2.credentials import StaticCredentialsProvider

from tests.e2e.watched_oss import ACCOUNT, WatchedOss
from tests.faults.mixture import Content, Name, Planned

COMPLETIONS: Final = "contest.completions"
_ROWS: Final = 'SELECT "eventSource", "eventId", "ossKey" FROM job_outputs'


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look."""

    amqp_url: str
    database_url: str
    oss: WatchedOss
    temp_dir: Path
    dead_queue: str | None
    """Where the contestant keeps what it gave up."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many there are of each kind of damage; all but `stored` should be 0."""

    stored: int
    lost: int
    """Good events without a row."""
    given_up: int
    """Of those, the ones that somebody could find among the dead letters."""
    duplicate_rows: int
    rows_without_object: int
    objects_without_row: int
    rows_without_completion: int
    completions_of_several_ids: int
    bad_without_trace: int
    """Bad events that nobody would ever hear of."""
    temp_files_left: int
    """Of events that were to be stored."""


async def tally(confirmed: Iterable[Planned], places: Places) -> Tally:
    """The figures of one run, once it has ended."""
    events = {planned.name: planned for planned in confirmed}
    good = {name: planned.fate for name, planned in events.items() if isinstance(planned.fate, Content)}
    rows = await _rows(places.database_url)
    objects = await asyncio.to_thread(_objects, places.oss)
    connection = await aio_pika.connect(places.amqp_url)
    async with connection, connection.channel() as channel:
        completions = await _completion_ids(channel)
        dead = await _dead(channel, places.dead_queue, events)
    names = Counter(name for name, _ in rows)
    lost = good.keys() - names.keys()
    return Tally(
        stored=len(good) - len(lost),
        lost=len(lost),
        given_up=len(lost & dead),
        duplicate_rows=names.total() - len(names),
        rows_without_object=sum(_is_missing(objects.get(key), good.get(name)) for name, key in rows),
        objects_without_row=len(objects.keys() - {key for _, key in rows}),
        rows_without_completion=len(names.keys() - completions.keys()),
        completions_of_several_ids=sum(len(set(ids)) > 1 for ids in completions.values()),
        bad_without_trace=len(events.keys() - good.keys() - dead),
        temp_files_left=len(_paths(events[name] for name in good) & set(places.temp_dir.iterdir())),
    )


async def _rows(database_url: str) -> list[tuple[Name, str]]:
    connection = await asyncpg.connect(database_url)
    try:
        return [((row["eventSource"], row["eventId"]), row["ossKey"]) for row in await connection.fetch(_ROWS)]
    finally:
        await connection.close()


def _objects(oss: WatchedOss) -> dict[str, str]:
    """The MD5 of each object."""
    credentials = StaticCredentialsProvider(ACCOUNT.access_key_id, ACCOUNT.access_key_secret)
    bucket = oss2.Bucket(oss2.ProviderAuthV4(credentials), oss.url, oss.bucket, region="cn-hangzhou")
    listed = oss2.ObjectIteratorV2(bucket, prefix="users/", max_keys=1000)
    return {each.key: each.etag.strip('"') for each in listed if not each.key.startswith("users/.")}  # not our probes


def _is_missing(found: str | None, due: Content | None) -> bool:
    return found is None or due is None or found != due.md5


async def _completion_ids(channel: AbstractChannel) -> Mapping[Name, Sequence[str]]:
    ids = defaultdict(list)
    for message in await _all(channel, COMPLETIONS):
        event = json.loads(message.body)
        ids[event["data"]["causeSource"], event["data"]["causeId"]].append(event["id"])
    return ids


async def _dead(channel: AbstractChannel, queue: str | None, events: Mapping[Name, Planned]) -> set[Name]:
    bodies = {planned.body: name for name, planned in events.items()}
    return {bodies[message.body] for message in await _all(channel, queue)} if queue else set()


async def _all(channel: AbstractChannel, name: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
    queue = await channel.get_queue(name, ensure=False)
    found = []
    while message := await queue.get(fail=False, no_ack=True):
        found.append(message)
    return found


def _paths(events: Iterable[Planned]) -> set[Path]:
    urls = (urlsplit(planned.event.data.image_url) for planned in events if planned.event)
    return {Path(unquote(url.path)) for url in urls if url.scheme == "file"}
