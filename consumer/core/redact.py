"""Text that may be shown: without credentials, on one line, of bounded length."""

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

MAX_DETAIL_CHARS: Final = 500
_MAX_URL_CHARS: Final = 2000
# Quotes and brackets may belong to it. The scheme is bounded, or a long word without one would take quadratic time.
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[^\s\"<>]+", re.IGNORECASE)
_DATA_URL: Final = re.compile(r"(data:[^,\s]{0,100},)\S+", re.IGNORECASE)


def redact_url(url: str) -> str:
    """The URL without user, password, query and fragment, which may hold credentials; a data: URL without its data."""
    if url[:5].lower() == "data:":
        return _DATA_URL.sub(r"\1…", url)[:_MAX_URL_CHARS]
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no valid URL)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:_MAX_URL_CHARS]


def redact(text: str) -> str:
    """One line of at most 500 printable characters in which every URL is redacted; any database can hold it."""
    text = "".join(char if char.isprintable() else " " for char in text)
    text = _DATA_URL.sub(r"\1…", text)
    text = _URL.sub(lambda match: redact_url(match.group()), text)
    line = " ".join(text.split())
    return line if len(line) <= MAX_DETAIL_CHARS else line[: MAX_DETAIL_CHARS - 1] + "…"
