import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode, encode

from consumer.adapters.amqp_decoding import read_anything, writable

read_anything()

KINDS = b"AbBdDfFiIlLsSTtuUVx"


def long(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def short(content: bytes) -> bytes:
    return bytes([len(content)]) + content


names = st.binary(max_size=255)
texts = st.text(max_size=300).map(str.encode) | st.binary(max_size=300)


values = st.one_of(
    texts.map(lambda text: b"S" + long(text)),
    st.binary(max_size=40).map(lambda raw: b"x" + long(raw)),
    st.integers(0, 2**64 - 1).map(lambda number: b"T" + struct.pack(">Q", number)),
    st.floats(width=64).map(lambda number: b"d" + struct.pack(">d", number)),
    st.tuples(st.integers(0, 255), st.integers(-(2**31), 2**31 - 1)).map(lambda d: b"D" + struct.pack(">Bi", *d)),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: b"l" + struct.pack(">q", number)),
    st.just(b"V"),
)
entries = st.tuples(names, values).map(lambda entry: short(entry[0]) + entry[1])
nested = st.lists(entries, max_size=3).map(lambda inner: short(b"inner") + b"F" + long(b"".join(inner)))
arrays = st.lists(values, max_size=3).map(lambda inner: short(b"array") + b"A" + long(b"".join(inner)))
garbage = st.tuples(names, st.sampled_from(KINDS), st.binary(max_size=40)).map(
    lambda entry: short(entry[0]) + bytes([entry[1]]) + entry[2]
)
tables = st.lists(entries | nested | arrays | garbage, max_size=4).map(lambda all_of_it: long(b"".join(all_of_it)))


@given(st.integers(0, 2**64 - 1))
def test_every_timestamp_can_be_read(value: int) -> None:
    consumed, _ = decode.by_type(struct.pack(">Q", value), "timestamp")
    assert consumed == 8


@given(st.binary(max_size=255))
def test_every_short_string_can_be_read_and_written(text: bytes) -> None:
    consumed, found = decode.by_type(short(text) + b"rest", "shortstr")
    assert consumed == len(text) + 1
    assert isinstance(found, str)
    assert len(encode.short_string(found)) <= 256


@given(st.text(max_size=60))
def test_text_is_what_it_was(text: str) -> None:
    assert decode.by_type(short(text.encode()), "shortstr")[1] == text


@given(tables)
def test_what_was_read_of_a_table_can_be_written(raw: bytes) -> None:
    _, table = decode.by_type(raw, "table")
    assert isinstance(table, dict)
    encode.field_table(writable(table))


def test_of_a_table_only_what_cannot_be_written_is_left_out() -> None:
    raw = long(short(b"kept") + b"S" + long(b"fox") + short(b"odd") + b"S" + long(b"\xe9") + short(b"n") + b"b\x07")
    _, table = decode.by_type(raw, "table")
    assert isinstance(table, dict)
    assert writable(table) == {"kept": "fox", "n": 7}


@given(st.binary(max_size=100))
def test_every_table_is_left_behind_whatever_is_in_it(content: bytes) -> None:
    consumed, _ = decode.by_type(struct.pack(">I", len(content)) + content, "table")
    assert consumed == len(content) + 4


@pytest.mark.parametrize("table", [{}, {"x-attempt": 4, "nested": {"a": ["b", 1]}}])
def test_a_table_that_can_be_read_is_read(table: dict[str, object]) -> None:
    assert decode.by_type(encode.field_table(table), "table")[1] == table  # type: ignore[arg-type]  # a plain one
