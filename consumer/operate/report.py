"""What the commands of operators print."""

import json
from collections.abc import Sequence

import click

from consumer.core.dead_letter import DeadLetter
from consumer.operate.dead_letters import Group, Opened
from consumer.operate.display import cell, print_json, print_table, shown
from consumer.operate.timeline import Known, contradictions, timeline


def print_groups(groups: dict[str, Group], *, as_json: bool) -> None:
    """A line for each reason."""
    if as_json:
        print_json([{"reason": reason, **shown(group)} for reason, group in groups.items()])
        return
    rows = [
        (reason, group.count, group.oldest, group.newest, group.example.job_id, group.example.detail)
        for reason, group in groups.items()
    ]
    _table("reason", "letters", "oldest", "newest", "such as job", "detail", rows=rows)


def print_letters(letters: list[DeadLetter], *, as_json: bool) -> None:
    """A line for each letter."""
    if as_json:
        print_json(letters)
        return
    rows = [
        (
            letter.failed_at,
            letter.reason,
            letter.job_id,
            letter.user_id,
            letter.event_id or letter.message_id,
            letter.attempts,
            letter.replays,
            letter.detail,
        )
        for letter in letters
    ]
    _table("failed", "reason", "job", "user", "event", "attempts", "replays", "detail", rows=rows)


def print_opened(letters: list[Opened], *, as_json: bool) -> None:
    """All of each letter; what cannot be read of a body is shown as text."""
    if as_json:
        print_json([{**shown(found.letter), "headers": found.headers, "body": _body(found.body)} for found in letters])
        return
    for found in letters:
        for name, value in shown(found.letter).items():
            click.echo(f"{name:<11} {cell(value)}")
        click.echo(f"{'headers':<11} {json.dumps(shown(found.headers), ensure_ascii=False)}")
        click.echo(json.dumps(shown(_body(found.body)), indent=2, ensure_ascii=False))


def print_trace(job_id: str, known: Known, *, as_json: bool) -> None:
    """The timeline, and what of it cannot be."""
    entries, wrong = timeline(known), contradictions(known)
    if as_json:
        print_json({"jobId": job_id, "timeline": entries, "contradictions": wrong})
        return
    _table("when", "what", "event", "", rows=[(entry.at, entry.what, entry.event_id, entry.text) for entry in entries])
    for sentence in wrong:
        click.secho(f"contradiction: {cell(sentence)}", fg="red")


def _table(*columns: str, rows: Sequence[Sequence[object]]) -> None:
    if rows:
        print_table(columns, rows)
    else:
        click.echo("there is no such dead letter")


def _body(body: bytes) -> object:
    try:
        document = json.loads(body)
        shown(document)
    except (ValueError, RecursionError):  # no JSON, or deeper than anybody could read
        return body.decode(errors="replace").replace("\\/", "/")  # as JSON may have it: a URL must be known as one
    return document
