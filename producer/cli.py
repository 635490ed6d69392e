"""The command line of the producer."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import click
from rich.console import Console

from producer.api.messages import MAX_PASSWORD_CHARS
from producer.api.users import UsersFile
from producer.cli_cleanup import cleanup
from producer.connection import BrokerError
from producer.outcome import OnDelayed, Outcome, Outcomes, within
from producer.publisher import Publisher, image_generated
from producer.settings import ApiSettings, PublishSettings, UsersSettings
from producer.temp_file import place
from schemas.environment import load
from schemas.events import (
    ImageGenerated,
    ImageOutputExpired,
    ImageUploadCompleted,
    ImageUploadDelayed,
    ImageUploadFailed,
)

_DEFAULT_WAIT_S: Final = 300
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class _JsonObject(click.ParamType[dict[str, Any]]):
    name = "json"

    def convert(
        self, value: str | dict[str, Any], param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        try:
            parsed = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            self.fail('must be a JSON object, such as {"model": "sdxl"}', param, ctx)
        return parsed


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: image-uploads-producer publish fox.png --user test@factory-buy.com --wait",
)
def cli() -> None:
    """Announce images to the image-uploads worker, and ask it for a cleanup.

    AMQP_URL names RabbitMQ; a .env file in the working directory is read.
    """


cli.add_command(cleanup)


@cli.command(
    epilog="""\b
Examples:
  image-uploads-producer publish https://cdn.example.com/fox.png --user test@factory-buy.com
  image-uploads-producer publish fox.png --user test@factory-buy.com --prompt "a red fox" --wait
  generate | image-uploads-producer publish - --user test@factory-buy.com --metadata '{"model": "sdxl"}'
"""
)
@click.argument("image", metavar="IMAGE")
@click.option("--user", "user_id", required=True, metavar="ID", help="Whose image it is.")
@click.option("--job", "job_id", metavar="ID", help="The job it belongs to.  [default: a new one]")
@click.option("--prompt", metavar="TEXT", help="What it was generated from.")
@click.option("--metadata", type=_JsonObject(), help="An object to keep with it, at most 8 KiB.")
@click.option("--expires-at", metavar="TIME", help="When it may be deleted, such as 2027-01-31T00:00:00Z.")
@click.option("--source", default="/generators/cli", show_default=True, metavar="URI", help="Who announces it.")
@click.option("--id", "event_id", metavar="ID", help="The event's id within the source.  [default: a new one]")
@click.option("--wait", is_flag=True, help="Wait for the outcome, and print the URL of the stored object.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=_DEFAULT_WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to --wait.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead.")
def publish(  # noqa: PLR0913 click passes one argument for each option
    *,
    image: str,
    user_id: str,
    job_id: str | None,
    prompt: str | None,
    metadata: dict[str, Any] | None,
    expires_at: str | None,
    source: str,
    event_id: str | None,
    wait: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Announce one image, and print the id of its event.

    IMAGE is a URL, a local file (which is copied into TEMP_DIR for the worker), or - for standard input.

    Exits with 0 when RabbitMQ has confirmed the event and, with --wait, the image is stored; else with 1.
    """
    settings = load(PublishSettings)
    with _url_of(image, settings.temp_dir) as image_url:
        try:
            event = image_generated(
                image_url=image_url,
                job_id=job_id or str(uuid4()),
                user_id=user_id,
                source=source,
                prompt=prompt,
                metadata=metadata,
                expires_at=expires_at,
                id=event_id,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        outcome = asyncio.run(_publish(event, settings.amqp_url.get_secret_value(), timeout_s if wait else None))
    _print_json(event, outcome) if as_json else _print(event, outcome)


@cli.command(epilog="Example: JWT_SECRET=… DATABASE_URL=… image-uploads-producer api")
def api() -> None:
    """Serve the HTTP ingress until SIGTERM.

    POST /auth/login, POST /ai/generate-image, GET /ai/jobs/ID; /openapi.json describes them. /metrics, /healthz and
    /readyz are on the same port.
    """
    from producer.api.server import serve  # noqa: PLC0415 it doubles the time in which the other commands start

    raise click.exceptions.Exit(asyncio.run(serve(load(ApiSettings))))


@cli.group(epilog="Example: image-uploads-producer users add test@factory-buy.com")
def users() -> None:
    """Look after those who may log in to the ingress (API_USERS_FILE)."""


@users.command(
    epilog="""\b
Examples:
  image-uploads-producer users add test@factory-buy.com
  echo "$PASSWORD" | image-uploads-producer users add test@factory-buy.com
"""
)
@click.argument("email", metavar="EMAIL")
def add(*, email: str) -> None:
    """Let EMAIL log in, with a password that is asked for, or read from standard input.

    The email becomes the userId of all that he uploads. Adding a user again changes the password.
    """
    file, password = UsersFile(load(UsersSettings).api_users_file), _password()
    try:
        is_new = file.add(email, password)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="EMAIL") from error
    click.echo(f"{email} may log in now" if is_new else f"{email} has a new password")


def _password() -> str:
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.buffer.readline().decode(errors="replace").rstrip("\r\n")
    if not 0 < len(password) <= MAX_PASSWORD_CHARS or "\N{REPLACEMENT CHARACTER}" in password:
        raise click.UsageError(f"the password must be 1 to {MAX_PASSWORD_CHARS} characters in UTF-8")
    return password


async def _publish(event: ImageGenerated, amqp_url: str, wait_s: float | None) -> Outcome | None:
    """The broker has the event; its outcome, if it was to be waited for."""
    async with Publisher(amqp_url) as publisher:
        if wait_s is None:
            await publisher.publish_event(event)
            return None
        with _progress(event) as show_delay:
            async with Outcomes(amqp_url, on_delayed=show_delay) as outcomes:
                with outcomes.of(event) as outcome:
                    await publisher.publish_event(event)
                    return await within(wait_s, event, outcome)


@contextmanager
def _progress(event: ImageGenerated) -> Iterator[OnDelayed]:
    """Something moves on a terminal; elsewhere each delay of the event becomes a line."""
    console = Console(stderr=True)
    with console.status("waiting for the outcome") if console.is_terminal else nullcontext() as status:

        def show(delayed: ImageUploadDelayed) -> None:
            if (delayed.data.cause_source, delayed.data.cause_id) != (event.source, event.id):
                return
            if status is None:
                click.echo(_delay(delayed), err=True)
            else:
                status.update(_delay(delayed))

        yield show


def _delay(delayed: ImageUploadDelayed) -> str:
    return f"delayed by {delayed.data.reason}; next try at {delayed.data.next_try_at.astimezone():%H:%M:%S}"


@contextmanager
def _url_of(image: str, temp_dir: Path) -> Iterator[str]:
    """A URL of the image; the file that was placed for it is gone again if the broker certainly has no event of it."""
    if _URL.match(image):
        yield image
        return
    path = _placed(image, temp_dir)
    try:
        yield path.as_uri()
    except click.UsageError:
        path.unlink(missing_ok=True)
        raise
    except BrokerError as error:
        if not error.broker_may_have_it:
            path.unlink(missing_ok=True)
        raise


def _placed(image: str, temp_dir: Path) -> Path:
    try:
        content = click.open_file(image, "rb")  # which takes - for standard input
    except OSError as error:
        raise click.BadParameter(f"{image} cannot be read: {error.strerror}", param_hint="IMAGE") from error
    with content:
        try:
            return place(content, temp_dir, suffix=Path(image).suffix)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="IMAGE") from error
        except OSError as error:
            raise click.ClickException(f"TEMP_DIR {temp_dir} cannot take the image: {error.strerror}") from error


def _print(event: ImageGenerated, outcome: Outcome | None) -> None:
    match outcome:
        case None:
            click.echo(f"published for job {event.data.job_id}", err=True)
            click.echo(event.id)
        case ImageUploadCompleted():
            click.echo(outcome.data.image_url)
        case ImageUploadFailed():
            raise click.ClickException(f"{outcome.data.reason}: {outcome.data.detail}")
        case ImageOutputExpired():
            raise click.ClickException(
                f"the output of this event expired at {outcome.data.expired_at:%Y-%m-%dT%H:%M:%SZ}"
            )


def _print_json(event: ImageGenerated, outcome: Outcome | None) -> None:
    result = {
        "id": event.id,
        "source": event.source,
        "jobId": event.data.job_id,
        "outcome": outcome and outcome.model_dump(mode="json", by_alias=True, include={"type", "data"}),
    }
    click.echo(json.dumps(result, indent=2))
    if isinstance(outcome, ImageUploadFailed | ImageOutputExpired):
        raise click.exceptions.Exit(1)
