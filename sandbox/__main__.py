"""The sandbox's command line: `python -m sandbox`."""

import sys
from pathlib import Path
from shlex import quote

import click

from sandbox.demo import run
from sandbox.process import DidNotStartError, NotInstalledError
from sandbox.system import System

_directory = click.option(
    "--dir",
    "directory",
    default=".sandbox",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where data, logs and the list of what runs are kept.",
)


@click.group(epilog="Example: python -m sandbox demo")
def main() -> None:
    """Private RabbitMQ, PostgreSQL and OSS-protocol servers on free ports of 127.0.0.1."""


@main.command(epilog='Example: set -a; eval "$(python -m sandbox up)"; python -m consumer worker')
@_directory
def up(directory: Path) -> None:
    """Start what does not run yet, and print the settings for it as lines KEY=VALUE, quoted for a shell."""
    system = System(directory, attached=False)
    try:
        system.up(_tell)
    except (DidNotStartError, NotInstalledError) as error:
        raise click.ClickException(str(error)) from None
    for name, value in system.environment().items():
        click.echo(f"{name}={quote(value)}")


@main.command(epilog="Example: python -m sandbox down")
@_directory
def down(directory: Path) -> None:
    """Stop what `up` started. Data is kept; removing the directory afterwards removes it."""
    System(directory, attached=False).down(_tell)


@main.command(epilog="Example: python -m sandbox demo")
def demo() -> None:
    """Do the main job on sample images, on services of its own, and show what happened."""
    sys.exit(run(Path(".sandbox")))


def _tell(progress: str) -> None:
    click.echo(progress, err=True)


if __name__ == "__main__":
    sys.exit(main(prog_name="python -m sandbox"))
