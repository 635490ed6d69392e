"""The ledger sees every kind of damage; else its silence would prove nothing."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import aio_pika
import pytest

from sandbox.oss.store import Store
from sandbox.postgres import ask
from schemas import topology
from schemas.reasons import Reason
from tests.faults.mixture import Name
from tests.faults.services import Services
from tests.faults.world import World

pytestmark = pytest.mark.real

STORED: Final = 6
FAILED: Final = 3


async def test_the_ledger_sees_every_kind_of_damage(services: Services) -> None:
    async with World.opened(services) as world:
        await world.attached(world.start_worker())
        good = [world.mixture.good() for _ in range(STORED)]
        bad = [world.mixture.bad(Reason.NOT_AN_IMAGE) for _ in range(FAILED)]
        await world.generator.publish_all([*good, *bad], per_s=1000)
        verdict = await world.finish()
        assert verdict.violations == []
        assert (verdict.figures["stored"], verdict.figures["failed"]) == (STORED, FAILED)

        figures = verdict.figures
        for kind, damage in DAMAGES:
            before = figures
            await damage(world)
            figures = (await world.ledger.compare()).figures
            assert figures[kind] > before[kind], f"nobody noticed: {damage.__name__}"
        checked = {kind for kind, value in verdict.figures.items() if value == 0}
        assert checked == {kind for kind, _ in DAMAGES}


async def a_row_is_gone(world: World) -> None:
    ask(world.database_url, "DELETE FROM job_outputs WHERE \"eventId\" = 'event-1'")


async def a_failure_has_another_reason(world: World) -> None:
    ask(world.database_url, "UPDATE job_failures SET reason = 'too_large' WHERE \"eventId\" = 'event-7'")


async def an_event_has_failed_twice(world: World) -> None:
    _copy_row(world, "job_failures", "event-8", {"id": "gen_random_uuid()"})


async def a_row_tells_of_other_bytes(world: World) -> None:
    ask(world.database_url, "UPDATE job_outputs SET crc64 = '1' WHERE \"eventId\" = 'event-2'")


async def an_object_is_gone(world: World) -> None:
    _store(world).delete([_key(world, "event-3")])


async def an_object_has_other_bytes(world: World) -> None:
    _put(world, _key(world, "event-4"))


async def an_object_has_no_row(world: World) -> None:
    _put(world, "users/u/jobs/j/image-1-0123456789abcdef.png")


async def a_row_was_never_announced(world: World) -> None:
    changes = {"id": "gen_random_uuid()", "eventId": "'unheard'", "ossKey": "'unheard'"}
    _copy_row(world, "job_outputs", "event-5", changes)


async def a_completion_comes_under_another_id(world: World) -> None:
    event = json.loads(_heard(world.ledger._completions, "event-6"))
    await _publish(world, topology.EXCHANGE, "image.upload.completed", event | {"id": "another"})


async def a_completion_differs_from_its_row(world: World) -> None:
    event = json.loads(_heard(world.ledger._completions, "event-6"))
    event["data"]["width"] += 1
    await _publish(world, topology.EXCHANGE, "image.upload.completed", event)


async def a_failure_was_never_announced(world: World) -> None:
    _copy_row(world, "job_failures", "event-8", {"id": "gen_random_uuid()", "eventId": "'unheard'"})


async def a_failed_event_has_another_reason(world: World) -> None:
    event = json.loads(_heard(world.ledger._failures, "event-9"))
    event["data"]["reason"] = "too_large"
    await _publish(world, topology.EXCHANGE, "image.upload.failed", event)


async def a_dead_letter_is_of_nobody(world: World) -> None:
    await _publish(world, "", topology.DEAD_QUEUE, {})


async def a_file_stays_behind(world: World) -> None:
    (world.temp_dir / "forgotten.png").touch()


async def a_message_stays_behind(world: World) -> None:
    await _publish(world, "", topology.WORK_QUEUE, {})


DAMAGES: Final[list[tuple[str, Callable[[World], Awaitable[None]]]]] = [
    ("lost", a_row_is_gone),
    ("wrong ends", a_failure_has_another_reason),
    ("duplicate rows", an_event_has_failed_twice),
    ("wrong rows", a_row_tells_of_other_bytes),
    ("rows without object", an_object_is_gone),
    ("rows without object", an_object_has_other_bytes),
    ("objects without row", an_object_has_no_row),
    ("rows without completion", a_row_was_never_announced),
    ("wrong completions", a_completion_comes_under_another_id),
    ("wrong completions", a_completion_differs_from_its_row),
    ("failures without event", a_failure_was_never_announced),
    ("wrong failed events", a_failed_event_has_another_reason),
    ("wrong dead letters", a_dead_letter_is_of_nobody),
    ("temp files left", a_file_stays_behind),
    ("messages left", a_message_stays_behind),
]


def _heard(news: Mapping[Name, Sequence[str]], event_id: str) -> str:
    return next(heard[0] for (_, name), heard in news.items() if name == event_id)


def _copy_row(world: World, table: str, event_id: str, changes: dict[str, str]) -> None:
    names = ask(
        world.database_url,
        "SELECT string_agg(column_name, ' ') FROM information_schema.columns"
        f" WHERE table_name = '{table}' AND column_name <> 'number'",
    )
    columns = {name: f'"{name}"' for name in str(names).split()}
    ask(
        world.database_url,
        f"INSERT INTO {table} ({', '.join(columns.values())})"
        f" SELECT {', '.join((columns | changes).values())} FROM {table} WHERE \"eventId\" = '{event_id}'",
    )


def _key(world: World, event_id: str) -> str:
    return str(ask(world.database_url, f'SELECT "ossKey" FROM job_outputs WHERE "eventId" = \'{event_id}\''))


def _store(world: World) -> Store:
    return world.oss._store


def _put(world: World, key: str) -> None:
    with _store(world).receive() as incoming:
        incoming.write(b"others")
        _store(world).commit(key, incoming, {})


async def _publish(world: World, exchange: str, routing_key: str, body: object) -> None:
    message = aio_pika.Message(json.dumps(body).encode(), message_id="stray")
    async with world.ledger._channel() as channel:
        await (await channel.get_exchange(exchange, ensure=False)).publish(message, routing_key)
