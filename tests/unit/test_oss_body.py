from io import BytesIO

import pytest

from consumer.adapters.oss import _SLICE_BYTES, _body
from consumer.core.ports import Image


@pytest.mark.parametrize("size_bytes", [0, 10, _SLICE_BYTES, 2 * _SLICE_BYTES + 10])
async def test_of_a_file_that_has_grown_since_it_was_summed_no_more_is_sent(size_bytes: int) -> None:
    body = _body(Image(BytesIO(bytes(size_bytes) + b"more"), size_bytes, 0))
    sent = body if isinstance(body, bytes) else b"".join([part async for part in body])
    assert sent == bytes(size_bytes)
