"""`python -m producer`, which is also installed as `image-uploads-producer`."""

import logging
import sys

import click

from producer.cli import cli
from producer.connection import BrokerError
from schemas.environment import SettingsError

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130


def main() -> None:
    """The command has run; exits with 0, or 1 failed, 2 wrong usage or settings, 130 interrupted."""
    for client in ("aio_pika", "aiormq"):  # what they have to say is in our one sentence
        logging.getLogger(client).addHandler(logging.NullHandler())
    sys.exit(_run())


def _run() -> int:
    try:
        return cli.main(prog_name="image-uploads-producer", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SettingsError as error:
        click.echo("\n".join(error.sentences), err=True)
        return WRONG_USAGE
    except BrokerError as error:
        click.echo(f"Error: {error}", err=True)
        return FAILED
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED


if __name__ == "__main__":
    main()
