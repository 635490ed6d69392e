"""A point in time, as it is typed."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_AGO: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> datetime:
    """So long ago (`90s`, `30m`, `2h`, `7d`), or an ISO 8601 date or time, which is local unless it says otherwise.

    Raises:
        ValueError: it is neither.
    """
    try:
        if match := _AGO.fullmatch(text.strip()):
            return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except OverflowError:
        raise ValueError("that is before the first year, or after the last") from None
