"""`image-uploads`, which is `python -m consumer`."""

import sys

import click

from consumer.cli import cli
from consumer.core.errors import BrokerError, StartError, UploadError
from consumer.core.redact import redact
from schemas.environment import SettingsError

_FAILED = 1
_WRONG_SETTINGS = 2
_INTERRUPTED = 130


def main() -> None:
    """Runs a command; exits with 0 done, 1 failed, 2 wrong usage or settings, 130 interrupted."""
    try:
        cli.main(prog_name="image-uploads", standalone_mode=False)
    except SettingsError as error:
        _say(*error.sentences)
        sys.exit(_WRONG_SETTINGS)
    except StartError as error:
        _say(str(error))
        sys.exit(_WRONG_SETTINGS)
    except (BrokerError, UploadError) as error:
        _say(redact(error.detail if isinstance(error, UploadError) else str(error)))
        sys.exit(_FAILED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(_INTERRUPTED)


def _say(*sentences: str) -> None:
    for sentence in sentences:
        click.echo(f"image-uploads: {sentence}", err=True)


if __name__ == "__main__":
    main()
