"""Two sorted listings are merged, and what an object and its row are to each other is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.adapters.oss import UNKNOWN_CRC64, StoredObject
from consumer.adapters.postgres_inventory import InventoryRow
from consumer.core.ports import ListedObject
from consumer.operate.findings import Findings
from consumer.operate.reconcile import ADVICE, Finding, Found, State, Summary, judge, merge

Item = TypeVar("Item")

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY = "users/test@factory-buy.com/jobs/abc123/image-1703123456789-1f3a9c02d4e5b677.png"
OLD = ListedObject(KEY, 3, NOON - timedelta(days=2))
YOUNG = ListedObject(KEY, 3, NOON)
HEAD = StoredObject(3, "7", NOON)
ROW = InventoryRow(KEY, UUID(int=1), 3, "7", is_deleted=False, is_expired=False)
DELETED = InventoryRow(KEY, UUID(int=1), 3, "7", is_deleted=True, is_expired=False)
EXPIRED = InventoryRow(KEY, UUID(int=1), 3, "7", is_deleted=False, is_expired=True)
DELETED_AND_EXPIRED = InventoryRow(KEY, UUID(int=1), 3, "7", is_deleted=True, is_expired=True)

# Few characters, of which some need several bytes and one a surrogate pair elsewhere: so there are borders and equals.
keys = st.text("a/|\u00fc\uffff\U00010000", min_size=1, max_size=4)


def row(key: str) -> InventoryRow:
    return InventoryRow(key, UUID(int=1), 3, "7", is_deleted=False, is_expired=False)


async def stream(items: Iterable[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item


@given(st.sets(keys), st.sets(keys))
def test_every_key_of_either_side_comes_once_in_the_order_of_its_bytes_with_all_there_is(
    objects: set[str], rows: set[str]
) -> None:
    found = {key: ListedObject(key, 3, NOON) for key in objects}
    there = {key: row(key) for key in rows}

    async def merged() -> list[object]:
        sides = ([side[key] for key in sorted(side, key=str.encode)] for side in (found, there))
        left, right = sides
        return [pair async for pair in merge(stream(left), stream(right))]  # type: ignore[arg-type] # one of each

    expected = [(key, found.get(key), there.get(key)) for key in sorted(objects | rows, key=str.encode)]
    assert asyncio.run(merged()) == expected


@pytest.mark.parametrize(
    ("found", "of", "state"),
    [
        (OLD, ROW, State.MATCHING),
        (HEAD, ROW, State.MATCHING),
        (StoredObject(3, UNKNOWN_CRC64, NOON), ROW, State.UNKNOWN_CHECKSUM),
        (StoredObject(3, "8", NOON), ROW, State.OTHER_CHECKSUM),
        (StoredObject(4, "8", NOON), ROW, State.OTHER_SIZE),
        (ListedObject(KEY, 4, NOON), ROW, State.OTHER_SIZE),
        (None, ROW, State.LOST),
        (OLD, EXPIRED, State.EXPIRED),
        (ListedObject(KEY, 4, NOON), EXPIRED, State.EXPIRED),
        (None, EXPIRED, State.EXPIRED),
        (None, DELETED, State.DELETED),
        (None, DELETED_AND_EXPIRED, State.DELETED),
        (YOUNG, DELETED_AND_EXPIRED, State.UNDELETED),
        (OLD, None, State.ORPHAN),
        (ListedObject(KEY, 3, NOON - timedelta(days=1)), None, State.ORPHAN),
        (YOUNG, None, State.YOUNG),
        (None, None, State.GONE),
    ],
)
def test_an_object_and_its_row_are_judged(found: Found | None, of: InventoryRow | None, state: State) -> None:
    assert judge(KEY, found, of, NOON - timedelta(days=1)) is state


@pytest.mark.parametrize("key", ["users/.image-uploads/probe", "users/a/holiday.png", KEY + ".bak", "users/a/jobs/j/"])
def test_an_object_with_a_name_that_is_not_ours_is_nobodys_orphan(key: str) -> None:
    assert judge(key, OLD, None, NOON) is State.FOREIGN


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_document_is_json_however_many_findings_it_has(capsys: pytest.CaptureFixture[str], count: int) -> None:
    findings, summary = Findings.of(click.echo, as_json=True), Summary(objects=count)
    for _ in range(count):
        summary.states[State.LOST] += 1
        findings.tell(Finding(State.LOST, KEY, 'row: "3" bytes', UUID(int=1), None, 3))
    findings.end(summary)
    document = json.loads(capsys.readouterr().out)
    assert [finding["what"] for finding in document["findings"]] == ["row without object"] * count
    assert all(finding["outputId"] == str(UUID(int=1)) for finding in document["findings"])
    assert document["summary"]["counts"]["row without object"] == count
    assert set(document["summary"]["advice"]) == ({"row without object"} if count else set())


def test_the_table_says_what_can_be_done_about_each_kind_of_finding(capsys: pytest.CaptureFixture[str]) -> None:
    findings, summary = Findings.of(click.echo, as_json=False), Summary()
    for state in ADVICE:
        summary.states[state] += 1
        findings.tell(Finding(state, KEY, "detail", None, None, None))
    summary.states[State.YOUNG] += 2
    findings.end(summary)
    out = capsys.readouterr().out
    for state, advice in ADVICE.items():
        assert f"{state}: 1 ({advice})" in out
        assert any(line.startswith(state) and KEY in line and line.endswith("detail") for line in out.splitlines())
    assert "too young to tell: 2" in out
    assert "nothing differs" not in out
    Findings.of(click.echo, as_json=False).end(Summary())
    assert "nothing differs" in capsys.readouterr().out
