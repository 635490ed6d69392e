"""What the publisher refuses by itself, and what it never says."""

import logging
import socket
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from producer import Publisher, PublishError
from producer.publisher import image_generated

CANARY = "canary-password"
NOWHERE = f"amqp://user:{CANARY}@127.0.0.1:1/"

GOOD: dict[str, Any] = {
    "image_url": "https://cdn.example.com/fox.png",
    "job_id": "abc123",
    "user_id": "test@factory-buy.com",
    "source": "/generators/test",
}


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"amqp://user:{CANARY}@127.0.0.1:{server.getsockname()[1]}/"


async def test_an_absent_broker_is_an_error_that_says_nothing_was_published() -> None:
    async with Publisher(NOWHERE) as publisher:
        with pytest.raises(PublishError, match=r"event 17 is not published: RabbitMQ cannot be reached") as caught:
            await publisher.publish(**GOOD, id="17")
    assert caught.value.event_id == "17"
    assert not caught.value.broker_may_have_it


async def test_a_silent_broker_is_an_error_after_the_timeout(silent_server: str) -> None:
    async with Publisher(silent_server, timeout_s=0.1) as publisher:
        with pytest.raises(PublishError, match=r"is not published: RabbitMQ did not answer within 0\.1 s"):
            await publisher.publish(**GOOD)


@pytest.mark.parametrize(
    "url",
    [
        NOWHERE,
        f"amqp://user:{CANARY}@127.0.0.1:1x/",
        f"amqp://user:{CANARY}@[::1/",
        f"http://user:{CANARY}@127.0.0.1:1/",
        f"amqp://user:{CANARY}",
        CANARY,
    ],
)
async def test_the_password_is_in_no_message_traceback_repr_or_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    publisher = Publisher(url)
    with pytest.raises(PublishError) as caught:
        await publisher.publish(**GOOD)
    told = [str(caught.value), repr(caught.value), repr(publisher), repr(vars(publisher)), caplog.text]
    told += traceback.format_exception(caught.value)
    seen: BaseException | None = caught.value
    while seen is not None:
        told.append(repr(seen))
        seen = seen.__cause__ or seen.__context__
    assert CANARY not in "".join(told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_url": "ftp://cdn.example.com/fox.png?signature=secret"}, "data.imageUrl is none of https:"),
        ({"job_id": "../../etc"}, "data.jobId string should match pattern"),
        ({"user_id": ""}, "data.userId string should match pattern"),
        ({"prompt": "\0"}, "data.prompt holds a NUL character"),
        ({"metadata": {"at": datetime.now(UTC)}}, "data.metadata holds what JSON cannot"),
        ({"metadata": {"x": "y" * 8192}}, "data.metadata is longer than 8192 bytes"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, ": data.expiresAt is not after time"),
        ({"time": datetime(2026, 1, 1)}, "time input should have timezone info|time should have timezone info"),  # noqa: DTZ001 the very thing that is refused
        ({"id": ""}, "id string should have at least 1 character"),
        ({"source": "s" * 513}, "source is longer than 512 bytes"),
        ({"image_url": "data:image/png;base64," + "A" * 1024 * 1024}, "larger than 1048576 bytes: .* file: or https:"),
    ],
)
async def test_a_wrong_value_is_named_before_anything_is_published(changes: dict[str, Any], message: str) -> None:
    async with Publisher(NOWHERE) as publisher:
        with pytest.raises(ValueError, match=message) as caught:
            await publisher.publish(**{**GOOD, **changes})
    assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_metadata_that_was_changed_after_the_event_was_made_is_looked_at_again() -> None:
    event = image_generated(**GOOD, metadata={})
    assert event.data.metadata is not None
    event.data.metadata["x"] = "y" * 9000
    async with Publisher(NOWHERE) as publisher:
        with pytest.raises(ValueError, match="longer than 8192 bytes"):
            await publisher.publish_event(event)


def test_an_event_has_a_random_id_and_the_time_of_now_unless_told_otherwise() -> None:
    before = datetime.now(UTC)
    one, other = image_generated(**GOOD), image_generated(**GOOD)
    assert one.id != other.id
    assert before <= one.time <= datetime.now(UTC)
    told = image_generated(**GOOD, id="17", time="2026-11-22T13:18:41Z")
    assert (told.id, told.time) == ("17", datetime(2026, 11, 22, 13, 18, 41, tzinfo=UTC))
