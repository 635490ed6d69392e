"""The commands of operators about what is stored: expire, reconcile."""

import asyncio
from uuid import UUID

import click
from rich.filesize import decimal

from consumer.adapters.postgres_expiry import Whose
from consumer.cli_options import DRY_RUN, JSON, YES, confirm, count, loaded, must_be_asked, options, told
from consumer.operate import expire, reconcile
from consumer.operate.display import print_json, progress_and_lines
from consumer.operate.findings import Findings
from consumer.settings import ExpireSettings, ReconcileSettings

_NEXT = "the next cleanup removes the objects; `image-uploads-producer cleanup --task expired --wait` does so now"


@click.command(
    "expire",
    epilog="""\b
Examples:
  image-uploads expire --user test@factory-buy.com --dry-run
  image-uploads expire --job abc123 --yes
""",
)
@options(
    click.option("--user", "user_id", metavar="ID", help="All outputs of this user."),
    click.option("--job", "job_id", metavar="ID", help="All outputs of this job."),
    click.option("--output", "output_id", type=click.UUID, metavar="UUID", help="This one."),
    DRY_RUN,
    YES,
    JSON,
)
def expire_(*, dry_run: bool, yes: bool, as_json: bool, **of: str | UUID | None) -> None:
    """Let the time of outputs come now: readers hide them at once, and the next cleanup deletes their objects.

    It does not reach events that still wait to be stored, prompt and metadata, which stay in the row, nor copies in
    the caches of a CDN. What is broken off can be run again.
    """
    if len(named := {name: value for name, value in of.items() if value is not None}) != 1:
        raise click.UsageError("name exactly one of --user, --job and --output")
    whose = Whose(**named)  # type: ignore[arg-type] # of click's own kinds
    settings = loaded(ExpireSettings)
    tally = expire.Tally()
    if dry_run:
        meant = asyncio.run(expire.meant(settings, whose))
        tally = expire.Tally(meant.count, meant.size_bytes)
    else:
        if must_be_asked(yes=yes):
            _confirm(settings, whose)
        with told(tally, "expired"):
            asyncio.run(expire.expire(settings, whose, tally))
    if not tally.done:
        raise click.ClickException(f"no output {whose} is there that is not expired or deleted already")
    if as_json:
        print_json({"expired": tally.done, "bytes": tally.size_bytes, "expiresAt": tally.at, "dryRun": dry_run})
    elif dry_run:
        click.echo(f"would be expired: {_outputs(tally.done, tally.size_bytes)}")
    else:
        click.echo(f"expired: {_outputs(tally.done, tally.size_bytes)}")
        click.echo(_NEXT)


@click.command(
    "reconcile",
    epilog="""\b
Examples:
  image-uploads reconcile --checksums
  image-uploads reconcile --user test@factory-buy.com --json
""",
)
@click.option("--user", "user_id", metavar="ID", help="Only what is this user's.")
@click.option("--checksums", is_flag=True, help="Compare checksums too, for which every object is asked (HEAD).")
@JSON
def reconcile_(*, user_id: str | None, checksums: bool, as_json: bool) -> None:
    """Compare the objects under users/ with the rows, in both directions, and say what differs; nothing is changed.

    Uploads and cleanups may go on: what differs is looked at twice. Objects younger than ORPHAN_GRACE_S may be about
    to get their rows, and those with names that are not ours are only counted. Exits with 1 when something differs.
    """
    if user_id is not None and (not user_id or "/" in user_id):
        raise click.BadParameter("a user's id is not empty and has no slash", param_hint="--user")
    settings = loaded(ReconcileSettings)
    summary = reconcile.Summary()
    with told(summary, "keys compared"), progress_and_lines("keys") as (show, say):
        findings = Findings.of(say, as_json=as_json)
        asyncio.run(reconcile.reconcile(settings, user_id, summary, findings.tell, show, checksums=checksums))
    findings.end(summary)
    raise SystemExit(int(summary.differences > 0))


def _confirm(settings: ExpireSettings, whose: Whose) -> None:
    """Somebody has seen what is meant, and said yes; else the program ends."""
    meant = asyncio.run(expire.meant(settings, whose))
    if meant.count:
        confirm(f"expire {_outputs(meant.count, meant.size_bytes)}, {whose}?")


def _outputs(number: int, size_bytes: int) -> str:
    return f"{count(number, 'output')}, {decimal(size_bytes)}"
