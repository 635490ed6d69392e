"""Writes what other languages read of the wire into `schemas/exported/`."""

from pathlib import Path

from schemas.asyncapi import exported

DIRECTORY = Path(__file__).parent / "exported"


def main() -> None:
    """Every exported file is in step with the models, and no other file is left there."""
    DIRECTORY.mkdir(exist_ok=True)
    texts = exported()
    for stale in set(DIRECTORY.glob("*.json")) - {DIRECTORY / name for name in texts}:
        stale.unlink()
    for name, text in texts.items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
