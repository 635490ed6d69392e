"""The commands of operators: dead letters, republish, trace."""

import asyncio
import sys
from datetime import datetime
from typing import Any, Final

import click

from consumer.adapters.postgres_history import Span
from consumer.cli_options import DRY_RUN, JSON, YES, confirm, count, loaded, must_be_asked, options, told
from consumer.operate import dead_letters, republish, trace
from consumer.operate.choice import Choice
from consumer.operate.dead_letters import Order
from consumer.operate.display import print_json
from consumer.operate.moment import moment
from consumer.operate.report import print_groups, print_letters, print_opened, print_trace
from consumer.settings import DeadLetterSettings, DiscardSettings, OssSettings, RepublishSettings, TraceSettings
from schemas.environment import load
from schemas.reasons import Reason


class _Moment(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return value if isinstance(value, datetime) else moment(value)
        except ValueError:
            self.fail("must be so long ago, such as 2h, or a time such as 2026-11-22T13:00:00Z", param, ctx)


_OF_THE_TIME: Final = (
    click.option("--since", type=_Moment(), help="Not before: 2h (ago), or 2026-11-22T13:00:00Z."),
    click.option("--until", type=_Moment(), help="Only before: the same."),
)
_OF_WHOM: Final = (
    click.option("--job", "job_id", metavar="ID", help="Of this job."),
    click.option("--user", "user_id", metavar="ID", help="Of this user."),
)
_LIMIT: Final = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.")
_RATE: Final = click.option(
    "--rate", "per_second", type=click.FloatRange(min=0, min_open=True), metavar="N", help="At most so many a second."
)
_REASON: Final = click.option(
    "--reason",
    "reasons",
    type=click.Choice([str(reason) for reason in Reason]),
    multiple=True,
    metavar="WORD",
    help="With this reason; may be given again.",
)
_CHOICE: Final = (_REASON, *_OF_WHOM, *_OF_THE_TIME)


@click.group(epilog="Example: image-uploads dead list --since 2h")
def dead() -> None:
    """Look at what has failed, send it through again, or give it up.

    AMQP_URL names RabbitMQ. Reading takes nothing away.
    """


@dead.command("list", epilog="Example: image-uploads dead list --reason not_an_image --since 2h --letters")
@options(*_CHOICE, _LIMIT)
@click.option("--letters", is_flag=True, help="One line for each letter, not for each reason.")
@JSON
def list_(*, letters: bool, limit: int | None, as_json: bool, **meant: Any) -> None:  # noqa: ANN401 of _CHOICE
    """Say what is in the dead queue, by reason."""
    url = loaded(DeadLetterSettings).amqp_url.get_secret_value()
    if letters:
        print_letters(asyncio.run(dead_letters.listed(url, Choice(**meant), limit)), as_json=as_json)
    else:
        print_groups(asyncio.run(dead_letters.grouped(url, Choice(**meant), limit)), as_json=as_json)


@dead.command(epilog="Example: image-uploads dead show abc123")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@JSON
def show(*, ids: tuple[str, ...], as_json: bool) -> None:
    """Say all that a dead letter tells; ID is that of an event, a job or a message.

    Signed queries, logins and data: URLs are not shown.
    """
    found = asyncio.run(dead_letters.named(loaded(DeadLetterSettings).amqp_url.get_secret_value(), ids))
    print_opened(found, as_json=as_json)
    known = set().union(*(letter.ids for letter in found))
    if unknown := [name for name in ids if name not in known]:
        raise click.ClickException(f"no dead letter has the event, job or message id {', '.join(unknown)}")


@dead.command(
    epilog="""\b
Examples:
  image-uploads dead replay --reason storage_refused --dry-run
  image-uploads dead replay --since 2h --rate 20
"""
)
@options(*_CHOICE, _LIMIT, _RATE, DRY_RUN, YES, JSON)
def replay(
    *,
    limit: int | None,
    per_second: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **meant: Any,  # noqa: ANN401 of _CHOICE
) -> None:
    """Send dead letters through again.

    What is broken off can be run again: an event is stored once, however often it is replayed.
    """
    url = loaded(DeadLetterSettings).amqp_url.get_secret_value()
    order = Order(Choice(**meant), limit, per_second, is_rehearsal=dry_run)
    if order.is_everything and not (dry_run or yes) and sys.stdin.isatty():
        _confirm("replay", url, order)
    tally = dead_letters.Tally()
    with told(tally, "replayed"):
        asyncio.run(dead_letters.replay(url, order, tally))
    _say("replayed", tally, dry_run=dry_run, as_json=as_json)


@dead.command(epilog="Example: image-uploads dead discard --reason not_an_image --until 30d")
@options(*_CHOICE, _LIMIT, DRY_RUN, YES, JSON)
def discard(*, limit: int | None, dry_run: bool, yes: bool, as_json: bool, **meant: Any) -> None:  # noqa: ANN401 same
    """Give dead letters up: they and the temp files of their events are deleted.

    The rows in job_failures stay.
    """
    settings = loaded(DiscardSettings)
    url = settings.amqp_url.get_secret_value()
    order = Order(Choice(**meant), limit, is_rehearsal=dry_run)
    if not dry_run and must_be_asked(yes=yes):
        _confirm("discard", url, order)
    tally = dead_letters.Tally()
    with told(tally, "discarded"):
        asyncio.run(dead_letters.discard(url, settings.temp_dir, order, tally))
    _say("discarded", tally, dry_run=dry_run, as_json=as_json)


@click.command("republish", epilog="Example: image-uploads republish --since 2h --user test@factory-buy.com")
@options(*_OF_THE_TIME, *_OF_WHOM, _LIMIT, _RATE, DRY_RUN, JSON)
def republish_(
    *,
    limit: int | None,
    per_second: float | None,
    dry_run: bool,
    as_json: bool,
    **meant: Any,  # noqa: ANN401 of _OF_THE_TIME and _OF_WHOM
) -> None:
    """Announce again, from the rows, what was stored or has failed: equal copies with the same ids.

    Left out are outputs that are deleted or expired, and failures that are resolved. AMQP_URL and DATABASE_URL say
    where, and OSS_* sign links where OSS_URL_EXPIRES_S is above 0.
    """
    settings = loaded(RepublishSettings)
    oss = load(OssSettings) if settings.oss_url_expires_s else None
    tally = republish.Tally()
    with told(tally, "announced"):
        order = republish.Order(Span(**meant), limit, per_second, is_rehearsal=dry_run)
        asyncio.run(republish.republish(settings, oss, order, tally))
    if as_json:
        print_json({"completions": tally.completions, "failures": tally.failures, "dryRun": dry_run})
    else:
        would = "would be announced" if dry_run else "announced"
        click.echo(f"{would}: {count(tally.completions, 'completion')}, {count(tally.failures, 'failure')}")


@click.command("trace", epilog="Example: image-uploads trace abc123")
@click.argument("job_id", metavar="JOB_ID")
@JSON
def trace_(*, job_id: str, as_json: bool) -> None:
    """Say everything that is known of a job, in one timeline: rows, objects, dead letters, temp files.

    What cannot be is named as a contradiction, such as a row without its object.
    """
    known = asyncio.run(trace.known_of(loaded(TraceSettings), job_id))
    if known.is_nothing:
        raise click.ClickException(
            f"nothing is known of the job {job_id}: it has no row and no dead letter; "
            "it may be in work, wait for a worker or for its next try, or never have been published"
        )
    print_trace(job_id, known, as_json=as_json)


def _confirm(verb: str, url: str, order: Order) -> None:
    """Somebody has seen what is meant, and said yes; else the program ends."""
    groups = asyncio.run(dead_letters.grouped(url, order.choice, order.limit))
    reasons = ", ".join(f"{reason} {group.count}" for reason, group in groups.items())
    total = sum(group.count for group in groups.values())
    if total:
        confirm(f"{verb} {count(total, 'dead letter')} ({reasons})?")


def _say(done: str, tally: dead_letters.Tally, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({done: tally.done, "reasons": dict(tally.reasons), "dryRun": dry_run})
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in tally.reasons.most_common())
    would = f"would be {done}" if dry_run else done
    click.echo(f"{would}: {count(tally.done, 'dead letter')}" + (f" ({reasons})" if reasons else ""))
