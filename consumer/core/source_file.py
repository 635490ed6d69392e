"""Which file a `file:` URL names."""

from contextlib import suppress
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit


def source_file(url: str | None) -> str | None:
    """The absolute path that a `file:` URL names, one spelling for all of its URLs; none if it names no file.

    What has a path may still lie outside of TEMP_DIR.
    """
    if url is None or url[:5].lower() != "file:":
        return None
    with suppress(ValueError):
        path = unquote(urlsplit(url).path)
        if path.startswith("/") and "\0" not in path:  # which no file system has, and no database takes
            return str(PurePosixPath(path))
    return None
