"""Handing an image to the workers through TEMP_DIR, the directory that they share with the generators."""

import os
import shutil
from pathlib import Path
from typing import IO
from uuid import uuid4

from schemas.environment import PART_PREFIX


def place(content: IO[bytes], directory: Path, *, suffix: str = "") -> Path:
    """The content is on disk under a name of its own that ends with `suffix`; `Path.as_uri` makes the event's URL.

    It appears whole or not at all: until then its name begins with `PART_PREFIX`, and so with a dot. The directory is
    made when missing, and the file's mode follows the umask, because workers may run as another user.

    Raises:
        ValueError: There was nothing to read.
        OSError: The directory or the file cannot be written. In both cases nothing is left behind.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100 without `..`, yet not following links as resolve() does
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{uuid4()}{suffix}"
    draft = directory / f"{PART_PREFIX}{path.name}"
    try:
        _write(content, draft)
        draft.rename(path)
        _sync(directory)
    except BaseException:
        draft.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    return path


def _write(content: IO[bytes], path: Path) -> None:
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
        if not file.tell():
            raise ValueError("there is nothing in it")
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    # Else the name could be lost in a power cut that the event survives.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
