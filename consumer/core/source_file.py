"""Which file a `file:` URL names."""

from contextlib import suppress
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit


def source_file(url: str | None) -> str | None:
    """The absolute path that a `file:` URL names, one spelling for all of its URLs; none if it names no file.

    A path that is no UTF-8, or holds NUL, names none: no row could tell of it. What has a path may still lie outside
    of TEMP_DIR.
    """
    if url is None or url[:5].lower() != "file:":
        return None
    with suppress(ValueError):
        path = unquote(urlsplit(url).path, errors="strict")
        path.encode()  # a lone surrogate is no UTF-8 either
        if path.startswith("/") and "\0" not in path:
            return str(PurePosixPath("/" + path.lstrip("/")))  # two slashes are kept, but mean one
    return None
