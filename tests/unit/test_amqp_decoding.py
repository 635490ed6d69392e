import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode, encode

from consumer.adapters import rabbit  # noqa: F401 its import makes decoding total


@given(st.integers(0, 2**64 - 1))
def test_every_timestamp_can_be_read(value: int) -> None:
    consumed, _ = decode.by_type(struct.pack(">Q", value), "timestamp")
    assert consumed == 8


@given(st.binary(max_size=255))
def test_every_short_string_can_be_read(text: bytes) -> None:
    consumed, found = decode.by_type(bytes([len(text)]) + text + b"rest", "shortstr")
    assert (consumed, found) == (len(text) + 1, text.decode(errors="replace"))


@given(st.binary(max_size=100))
def test_every_table_is_left_behind_whatever_is_in_it(content: bytes) -> None:
    consumed, _ = decode.by_type(struct.pack(">I", len(content)) + content, "table")
    assert consumed == len(content) + 4


@pytest.mark.parametrize("table", [{}, {"x-attempt": 4, "nested": {"a": ["b", 1]}}])
def test_a_table_that_can_be_read_is_read(table: dict[str, object]) -> None:
    assert decode.by_type(encode.field_table(table), "table")[1] == table  # type: ignore[arg-type]  # a plain one
