"""Dead letters on a real broker: reading takes nothing away, and whatever breaks off can be done again."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from weakref import WeakSet

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from consumer.adapters import rabbit
from consumer.adapters.rabbit_dead_letters import DeadLetters, RabbitDeadLetter
from consumer.adapters.rabbit_publisher import RabbitPublisher
from consumer.core.errors import BrokerError, DependencyError, StartError, TransientError
from consumer.core.ports import Delivery
from consumer.operate import dead_letters
from consumer.operate.choice import Choice
from consumer.operate.dead_letters import Order, Replay, Tally
from sandbox.process import free_port
from schemas import topology
from schemas.events import CONTENT_TYPE, ImageGenerated
from tests import samples

pytestmark = pytest.mark.real

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
CANARY = "canary-that-nobody-may-see"


class Queues:
    """The queues, as a test fills and empties them."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel

    async def bury(self, event: ImageGenerated, *, pad: int = 0, **more: Any) -> ImageGenerated:
        """The event is a dead letter, as a worker would have left it."""
        headers = {
            "x-reason": "not_an_image",
            "x-detail": "5 bytes that are no image",
            "x-attempt": 3,
            "x-failed-at": NOON.isoformat(),
            "x-worker": "w-1",
            "x-replays": 0,
            **{f"x-{name.replace('_', '-')}": value for name, value in more.items()},
        }
        headers = {name: value for name, value in headers.items() if value is not None}
        await self.put(topology.DEAD_QUEUE, event.body() + b" " * pad, headers, event.id)
        return event

    async def put(self, queue: str, body: bytes, headers: Mapping[str, Any], message_id: str) -> None:
        message = aio_pika.Message(
            body,
            headers=dict(headers),
            content_type=CONTENT_TYPE,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=message_id,
            correlation_id="abc123",
        )
        await self.channel.default_exchange.publish(message, queue)

    async def waiting(self, queue: str) -> int:
        declared = await self.channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0

    async def await_waiting(self, queue: str, count: int) -> None:
        """What a closed channel held is given back a moment later."""
        async with asyncio.timeout(10):
            while await self.waiting(queue) != count:  # noqa: ASYNC110 the broker tells nobody
                await asyncio.sleep(0.01)

    async def taken(self, queue: str) -> list[AbstractIncomingMessage]:
        """All that is in the queue, which is empty then."""
        declared = await self.channel.get_queue(queue)
        found = []
        while (message := await declared.get(no_ack=True, fail=False)) is not None:
            found.append(message)
        return found


@pytest.fixture
async def queues(amqp_url: str) -> AsyncIterator[Queues]:
    async with (
        await rabbit.connect(amqp_url, "test") as connection,
        connection.channel(on_return_raises=True) as channel,
    ):
        await rabbit.declare(connection, (1,))
        yield Queues(channel)


async def reasons(url: str, **named: Any) -> dict[str, int]:
    groups = await dead_letters.grouped(url, Choice(**named))
    return {reason: group.count for reason, group in groups.items()}


async def test_twenty_five_listings_take_nothing_away(queues: Queues, amqp_url: str) -> None:
    for _ in range(3):
        await queues.bury(samples.event())
    for _ in range(25):
        assert await reasons(amqp_url) == {"not_an_image": 3}
        await queues.await_waiting(topology.DEAD_QUEUE, 3)


async def test_groups_tell_how_many_since_when_and_an_example(queues: Queues, amqp_url: str) -> None:
    for hours, job in ((1, "b"), (2, "newest"), (0, "a")):
        await queues.bury(samples.event(job_id=job), failed_at=(NOON + timedelta(hours=hours)).isoformat())
    await queues.bury(samples.event(), reason="too_large")

    groups = await dead_letters.grouped(amqp_url, Choice())
    assert list(groups) == ["not_an_image", "too_large"]
    group = groups["not_an_image"]
    assert (group.count, group.oldest, group.newest) == (3, NOON, NOON + timedelta(hours=2))
    assert (group.example.job_id, group.example.detail) == ("newest", "5 bytes that are no image")


async def test_a_letter_tells_what_its_body_and_its_headers_say(queues: Queues, amqp_url: str) -> None:
    url = f"https://u:{CANARY}@cdn.test/fox.png?token={CANARY}"
    event = await queues.bury(samples.event(image_url=url), replays=2)
    (letter,) = await dead_letters.listed(amqp_url, Choice())
    assert (letter.event_id, letter.source, letter.message_id) == (event.id, event.source, event.id)
    assert (letter.job_id, letter.user_id, letter.happened_at) == ("abc123", "test@factory-buy.com", event.time)
    assert (letter.reason, letter.attempts, letter.replays, letter.worker) == ("not_an_image", 3, 2, "w-1")
    assert (letter.failed_at, letter.image_url) == (NOON, "https://cdn.test/fox.png")


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b'{"data": {"jobId": "abc123", "imageUrl": "file://["}}'])
async def test_a_letter_that_is_no_event_is_listed_shown_and_discarded_as_well(
    queues: Queues, amqp_url: str, tmp_path: Path, body: bytes
) -> None:
    await queues.put(topology.DEAD_QUEUE, body, {"x-reason": "undecodable", "x-failed-at": "never"}, "mangled")
    (letter,) = await dead_letters.listed(amqp_url, Choice())
    assert (letter.reason, letter.event_id, letter.failed_at) == ("undecodable", None, None)
    (opened,) = await dead_letters.named(amqp_url, ["mangled"])
    assert opened.body == body
    await dead_letters.discard(amqp_url, tmp_path, Order(Choice()), Tally())
    await queues.await_waiting(topology.DEAD_QUEUE, 0)


async def test_what_the_brokers_own_fence_moved_reads_as_a_crash_loop(queues: Queues, amqp_url: str) -> None:
    await queues.put(topology.WORK_QUEUE, samples.body(), {}, "deadly")
    queue = await queues.channel.get_queue(topology.WORK_QUEUE)
    while (message := await queue.get(fail=False)) is not None:
        await message.reject(requeue=True)
    await queues.await_waiting(topology.DEAD_QUEUE, 1)

    (letter,) = await dead_letters.listed(amqp_url, Choice())
    assert (letter.reason, letter.worker, letter.attempts, letter.replays) == ("crash_loop", None, 1, 0)
    assert letter.failed_at is not None
    assert abs(datetime.now(UTC) - letter.failed_at) < timedelta(minutes=1)
    assert await reasons(amqp_url, reasons=("crash_loop",), since=datetime.now(UTC) - timedelta(hours=1)) == {
        "crash_loop": 1
    }

    await dead_letters.replay(amqp_url, Order(Choice()), Tally())
    (copy,) = await queues.taken(topology.WORK_QUEUE)
    own = {name: value for name, value in copy.headers.items() if name != "x-delivery-count"}
    assert own == {"x-attempt": 1, "x-replays": 1}


async def test_thousands_of_letters_come_once_each_and_none_is_kept(queues: Queues, amqp_url: str) -> None:
    count = 2_100  # more than the 2,000 that a quorum queue gives to one consumer without a limit
    body = samples.body()
    for start in range(0, count, 300):
        await asyncio.gather(*(queues.put(topology.DEAD_QUEUE, body, {}, str(start + i)) for i in range(300)))

    ids, alive, most_alive = set(), WeakSet[RabbitDeadLetter](), 0
    began = time.monotonic()
    async with DeadLetters.opened(amqp_url) as letters:
        async for letter in letters:
            ids.add(letter.letter.message_id)
            alive.add(letter)
            most_alive = max(most_alive, len(alive))
    took_s = time.monotonic() - began
    assert (len(ids), letters.read) == (count, count)
    assert most_alive <= 2  # the one before goes when the next one has come
    assert took_s < 20  # 1 s on an idle machine
    await queues.await_waiting(topology.DEAD_QUEUE, count)


async def test_a_queue_that_is_being_filled_is_read_to_where_it_ended(queues: Queues, amqp_url: str) -> None:
    for _ in range(3):
        await queues.bury(samples.event())
    async with DeadLetters.opened(amqp_url) as letters:
        async for _ in letters:
            await queues.bury(samples.event())
    assert letters.read == 3
    await queues.await_waiting(topology.DEAD_QUEUE, 6)


async def test_two_who_read_at_once_share_the_letters_and_neither_waits_for_ever(queues: Queues, amqp_url: str) -> None:
    for _ in range(80):
        await queues.bury(samples.event())
    async with (
        DeadLetters.opened(amqp_url) as first,
        DeadLetters.opened(amqp_url) as second,
        aclosing(aiter(first)) as some,
    ):
        await anext(some)  # and the first page with it
        found = [letter async for letter in second]
        assert 0 < len(found) < 80
    await queues.await_waiting(topology.DEAD_QUEUE, 80)


async def test_a_replayed_letter_is_the_message_as_it_was_and_counts_the_replay(queues: Queues, amqp_url: str) -> None:
    event = await queues.bury(samples.event(), replays=1, of_a_generator="kept")
    tally = Tally()
    await dead_letters.replay(amqp_url, Order(Choice()), tally)
    assert tally.reasons == {"not_an_image": 1}
    (copy,) = await queues.taken(topology.WORK_QUEUE)
    assert copy.body == event.body()
    own = {name: value for name, value in copy.headers.items() if name != "x-delivery-count"}
    assert own == {"x-attempt": 1, "x-replays": 2, "x-of-a-generator": "kept"}
    assert copy.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
    assert (copy.message_id, copy.correlation_id, copy.content_type) == (event.id, "abc123", CONTENT_TYPE)
    await queues.await_waiting(topology.DEAD_QUEUE, 0)


async def test_only_what_is_meant_is_replayed_and_no_more_than_the_limit(queues: Queues, amqp_url: str) -> None:
    for number in range(6):
        await queues.bury(samples.event(job_id=f"j{number}"), reason="too_large" if number % 2 else "not_an_image")
    tally = Tally()
    await dead_letters.replay(amqp_url, Order(Choice(reasons=("too_large",)), limit=2), tally)
    assert tally.done == 2
    assert len(await queues.taken(topology.WORK_QUEUE)) == 2
    await queues.await_waiting(topology.DEAD_QUEUE, 4)
    assert await reasons(amqp_url) == {"not_an_image": 3, "too_large": 1}


async def test_all_that_is_meant_is_replayed_however_much_else_lies_between(queues: Queues, amqp_url: str) -> None:
    body, count = samples.body(), 400  # several pages of either kind, whose acks make room for more
    headers = [{"x-reason": "not_an_image"}, {"x-reason": "too_large"}]
    await asyncio.gather(*(queues.put(topology.DEAD_QUEUE, body, headers[i % 2], str(i)) for i in range(count)))
    tally = Tally()
    await dead_letters.replay(amqp_url, Order(Choice(reasons=("too_large",))), tally)
    assert tally.reasons == {"too_large": 200}
    await queues.await_waiting(topology.DEAD_QUEUE, 200)
    assert await reasons(amqp_url) == {"not_an_image": 200}
    await queues.await_waiting(topology.DEAD_QUEUE, 200)
    tally = Tally()
    await dead_letters.replay(amqp_url, Order(Choice()), tally)
    assert tally.reasons == {"not_an_image": 200}
    assert len({copy.message_id for copy in await queues.taken(topology.WORK_QUEUE)}) == count


async def test_a_rehearsal_counts_and_does_nothing(queues: Queues, amqp_url: str, tmp_path: Path) -> None:
    file = tmp_path / "fox.png"
    file.write_bytes(b"fox")
    await queues.bury(samples.event(image_url=file.as_uri()))
    order = Order(Choice(), is_rehearsal=True)
    replayed, discarded = Tally(), Tally()
    await dead_letters.replay(amqp_url, order, replayed)
    await queues.await_waiting(topology.DEAD_QUEUE, 1)
    await dead_letters.discard(amqp_url, tmp_path, order, discarded)
    await queues.await_waiting(topology.DEAD_QUEUE, 1)
    assert (replayed.done, discarded.done) == (1, 1)
    assert await queues.waiting(topology.WORK_QUEUE) == 0
    assert file.exists()


async def test_no_more_letters_are_replayed_a_second_than_wished(queues: Queues, amqp_url: str) -> None:
    for _ in range(4):
        await queues.bury(samples.event())
    began = time.monotonic()
    await dead_letters.replay(amqp_url, Order(Choice(), per_second=10), Tally())
    assert time.monotonic() - began >= 0.3


class Dying:
    """A publisher whose process ends right after the broker has confirmed a copy."""

    def __init__(self, publisher: RabbitPublisher, after: int) -> None:
        self.publisher = publisher
        self.left = after

    async def announce(self, event: Any) -> None:
        raise NotImplementedError

    async def copy(self, delivery: Delivery, queue: str, headers: Mapping[str, str | int]) -> None:
        await self.publisher.copy(delivery, queue, headers)
        self.left -= 1
        if not self.left:
            raise BrokerError("gone")


async def test_a_replay_that_dies_between_copy_and_ack_has_lost_nothing_and_goes_on(
    queues: Queues, amqp_url: str
) -> None:
    events = [await queues.bury(samples.event()) for _ in range(3)]
    publisher = RabbitPublisher(amqp_url, "test")
    tally = Tally()
    with pytest.raises(BrokerError):
        await dead_letters.work_off(amqp_url, Order(Choice()), Replay(Dying(publisher, after=2)), tally)
    await publisher.close()
    assert tally.done == 2
    await queues.await_waiting(topology.DEAD_QUEUE, 1)

    await dead_letters.replay(amqp_url, Order(Choice()), Tally())
    copies = await queues.taken(topology.WORK_QUEUE)
    assert sorted(copy.message_id or "" for copy in copies) == sorted([*(event.id for event in events), events[1].id])
    # Both copies are of one run, and one run has one row.
    assert {copy.headers["x-replays"] for copy in copies} == {1}
    await queues.await_waiting(topology.DEAD_QUEUE, 0)


async def test_a_copy_that_no_queue_takes_leaves_the_letter(queues: Queues, amqp_url: str) -> None:
    await queues.bury(samples.event())
    await queues.channel.queue_delete(topology.WORK_QUEUE)
    with pytest.raises(BrokerError, match="no queue takes image-uploads"):
        await dead_letters.replay(amqp_url, Order(Choice()), Tally())
    await queues.await_waiting(topology.DEAD_QUEUE, 1)


@pytest.mark.parametrize(("per_second", "at_once"), [(200, 1), (None, 32)])
async def test_an_interrupted_replay_leaves_each_letter_in_one_queue_or_in_both(
    queues: Queues, amqp_url: str, per_second: float | None, at_once: int
) -> None:
    events = [await queues.bury(samples.event()) for _ in range(70)]
    tally = Tally()
    replaying = asyncio.create_task(dead_letters.replay(amqp_url, Order(Choice(), per_second=per_second), tally))
    while tally.done < 5:  # noqa: ASYNC110 it tells nobody either
        await asyncio.sleep(0.001)
    replaying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await replaying
    copies = await queues.taken(topology.WORK_QUEUE)
    assert tally.done <= len(copies) <= tally.done + at_once
    seen = {message.message_id for message in copies}
    async with asyncio.timeout(10):
        while seen != {event.id for event in events}:
            seen |= {message.message_id for message in await queues.taken(topology.DEAD_QUEUE)}


async def test_discarding_frees_the_temp_file_and_leaves_all_others(
    queues: Queues, amqp_url: str, tmp_path: Path
) -> None:
    temp_dir, outside = tmp_path / "temp", tmp_path / "outside.png"
    temp_dir.mkdir()
    files = [temp_dir / name for name in ("one.png", "two.png", "unrelated.png")]
    for file in (*files, outside):
        file.write_bytes(b"fox")
    (temp_dir / "link").symlink_to(tmp_path)
    for path in (files[0], temp_dir / "gone.png", outside, temp_dir / "link" / "outside.png"):
        await queues.bury(samples.event(image_url=path.as_uri()), reason="not_an_image")
    await queues.bury(samples.event(image_url=files[1].as_uri()), reason="too_large")

    tally = Tally()
    await dead_letters.discard(amqp_url, temp_dir, Order(Choice(reasons=("not_an_image",))), tally)
    assert tally.done == 4
    assert [file.exists() for file in (*files, outside)] == [False, True, True, True]
    await queues.await_waiting(topology.DEAD_QUEUE, 1)
    assert await reasons(amqp_url) == {"too_large": 1}


async def test_discarding_a_conflict_leaves_the_file_to_the_event_that_came_first(
    queues: Queues, amqp_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "fox.png"
    file.write_bytes(b"fox")
    await queues.bury(samples.event(image_url=file.as_uri()), reason="conflicting_event")
    await dead_letters.discard(amqp_url, tmp_path, Order(Choice()), Tally())
    await queues.await_waiting(topology.DEAD_QUEUE, 0)
    assert file.exists()


async def test_a_letter_whose_file_cannot_be_deleted_stays(
    queues: Queues, amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "unlink", unlink)
    await queues.bury(samples.event(image_url=(tmp_path / "fox.png").as_uri()))
    with pytest.raises(TransientError, match="Input/output error"):
        await dead_letters.discard(amqp_url, tmp_path, Order(Choice()), Tally())
    await queues.await_waiting(topology.DEAD_QUEUE, 1)


async def test_a_letter_whose_file_is_elsewhere_stays_and_is_told(
    queues: Queues, amqp_url: str, tmp_path: Path
) -> None:
    await queues.bury(samples.event(image_url=(tmp_path / "fox.png").as_uri()))
    with pytest.raises(DependencyError, match="is not here: discard on a machine that shares it"):
        await dead_letters.discard(amqp_url, tmp_path / "not mounted", Order(Choice()), Tally())
    await queues.await_waiting(topology.DEAD_QUEUE, 1)


async def test_a_broker_that_is_away_or_has_no_dead_queue_is_told_in_one_sentence(amqp_url: str) -> None:
    with pytest.raises(BrokerError, match=r"has no queue image-uploads\.dead: run `image-uploads declare`"):
        await dead_letters.listed(amqp_url, Choice())
    away = f"amqp://user:{CANARY}@127.0.0.1:{free_port()}/"
    with pytest.raises(BrokerError, match=r"RabbitMQ at 127\.0\.0\.1:\d+/ does not answer") as caught:
        await dead_letters.listed(away, Choice())
    assert CANARY not in str(caught.value)


async def test_a_login_that_is_refused_is_told_as_wrong_settings(amqp_url: str) -> None:
    scheme, _, rest = amqp_url.partition("://")
    with pytest.raises(StartError, match="refuses the login") as caught:
        await dead_letters.listed(f"{scheme}://nobody:{CANARY}@{rest.rpartition('@')[2]}", Choice())
    assert CANARY not in str(caught.value)


async def test_a_connection_that_is_lost_in_between_is_told_and_loses_nothing(queues: Queues, amqp_url: str) -> None:
    for _ in range(3):
        await queues.bury(samples.event())

    read = []

    async def lose(at: int) -> None:
        async with DeadLetters.opened(amqp_url) as letters:
            async for letter in letters:
                read.append(letter)
                if letters.read == at:
                    await letters._connection.close()

    for at in (1, 3):  # the last one too: nobody knows whether its ack arrived
        read.clear()
        with pytest.raises(BrokerError, match="the connection was lost"):
            await lose(at)
        assert len(read) == at
        await queues.await_waiting(topology.DEAD_QUEUE, 3)
