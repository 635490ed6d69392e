"""Whatever a publisher wrote into a message's properties, its frame can be read, and what was read can be written.

The library raises over a timestamp beyond the year 9999 (microseconds where seconds belong) or text that is not UTF-8.
Raised while a frame is read, that ends the connection, and with it the deliveries of every event beside the odd one.
And some of what it reads it cannot write: no copy could be made of such a message, so it would never be settled.
Source: AMQP 0-9-1, sections 4.2.5.3 and 4.2.5.5.
"""

import struct
from datetime import UTC, datetime
from typing import Final

from pamqp import decode, encode
from pamqp.common import FieldTable, FieldValue

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def read_anything() -> None:
    """From now on, what cannot be read of a property is replaced; the rest of the frame is as it was."""
    decode.METHODS |= {"timestamp": _timestamp, "shortstr": _short_str, "table": _table}
    decode.TABLE_MAPPING |= {b"T": _timestamp}


def writable(headers: FieldTable) -> FieldTable:
    """Those of the headers that the library can write."""
    return {name: value for name, value in headers.items() if _is_writable(value)}


def _is_writable(value: FieldValue) -> bool:
    try:
        encode.encode_table_value(value)
    except Exception:  # noqa: BLE001 text of another encoding, a float of 64 bits: the library raises what it likes
        return False
    return True


def _timestamp(value: bytes) -> tuple[int, datetime]:
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return 8, _EPOCH


def _short_str(value: bytes) -> tuple[int, str]:
    length = value[0]
    text = value[1 : length + 1]
    try:
        return length + 1, text.decode()
    except UnicodeDecodeError:  # no more bytes than there were, or it could not be written
        return length + 1, text.decode("ascii", errors="replace").replace("\ufffd", "?")


def _table(value: bytes) -> tuple[int, FieldTable]:
    try:
        return decode.field_table(value)
    except (ValueError, OverflowError, OSError):
        (length,) = struct.unpack(">I", value[:4])
        return 4 + length, {}
