"""TEMP_DIR: files can be taken from it, and deleted in it."""

import os
import shutil
import stat
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from consumer.check.finding import Finding, Subject
from consumer.check.shell import Shell, path, user
from consumer.settings import SourceSettings
from schemas.environment import PART_PREFIX

TEMP_DIR: Final = Subject("TEMP_DIR")
_MIB: Final = 1024**2


def look(settings: SourceSettings, prefetch: int, shell: Shell) -> list[Finding]:
    """What there is to say of the directory; nothing is left in it."""
    directory = settings.temp_dir
    try:
        mode = directory.stat().st_mode
    except FileNotFoundError:
        return [_missing(directory)]
    except OSError as error:
        return [TEMP_DIR.wrong(f"{directory} cannot be looked at: {error.strerror}", _make(directory))]
    if not stat.S_ISDIR(mode):
        mend = f"mv {path(directory)} {path(directory)}.old && mkdir -p {path(directory)}"
        return [TEMP_DIR.wrong(f"{directory} is no directory", mend)]
    return _existing(directory, settings.max_image_bytes, prefetch, shell)


def _missing(directory: Path) -> Finding:
    parent = next(parent for parent in directory.parents if parent.exists())
    if not parent.is_dir():
        text = f"{directory} cannot be made: {parent} is no directory"
        return TEMP_DIR.wrong(text, f"mv {path(parent)} {path(parent)}.old && mkdir -p {path(directory)}")
    if not os.access(parent, os.W_OK | os.X_OK):
        return TEMP_DIR.wrong(f"{directory} is not there, and {user()} may not make it", _make(directory))
    return TEMP_DIR.warning(f"{directory} is not there yet; a worker makes it", f"mkdir -p {path(directory)}")


def _make(directory: Path) -> str:
    return f"sudo install -d -o {user()} -m 775 {path(directory)}"


def _existing(directory: Path, image_bytes: int, prefetch: int, shell: Shell) -> list[Finding]:
    try:
        TemporaryFile(prefix=PART_PREFIX, dir=directory).close()
    except OSError as error:
        text = f"{user()} cannot write in {directory}: {error.strerror}"
        return [TEMP_DIR.wrong(text, _let_in(directory) if isinstance(error, PermissionError) else None)]
    found = [TEMP_DIR.ok(f"{directory} can be written; generators must put their files there")]
    status = directory.stat()
    if status.st_mode & stat.S_ISVTX and os.geteuid() not in (0, status.st_uid):
        text = f"{directory} is sticky: {user()} cannot delete files of generators that run as another user"
        found.append(TEMP_DIR.warning(text, f"sudo chmod -t {path(directory)}"))
    return [*found, *_space(directory, image_bytes, prefetch, shell)]


def _let_in(directory: Path) -> str:
    if directory.stat().st_uid == os.geteuid():
        return f"chmod u+rwx {path(directory)}"
    # Its owner may be a generator, who keeps it.
    return f"sudo chgrp {os.getegid()} {path(directory)} && sudo chmod g+rwx {path(directory)}"


def _space(directory: Path, image_bytes: int, prefetch: int, shell: Shell) -> list[Finding]:
    free = shutil.disk_usage(directory).free
    wanted = image_bytes * prefetch
    if free >= wanted:
        return []
    text = f"{free // _MIB} MiB are free in {directory}; {prefetch} images at once may take {wanted // _MIB}"
    return [TEMP_DIR.warning(text, shell.set(PREFETCH=str(max(1, free // image_bytes))))]
