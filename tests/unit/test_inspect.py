import io
from contextlib import suppress

import pytest
from fastcrc import crc64
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from consumer.adapters.inspect import PillowInspector
from consumer.core.errors import PermanentError
from consumer.core.ports import Format, Image
from schemas.reasons import Reason
from tests import samples

inspect = PillowInspector(max_pixels=10_000)


def image(data: bytes) -> Image:
    return Image(io.BytesIO(data), len(data), crc64.xz(data))


@pytest.mark.parametrize(
    ("form", "content_type", "extension"),
    [
        ("JPEG", "image/jpeg", "jpg"),
        ("PNG", "image/png", "png"),
        ("WEBP", "image/webp", "webp"),
        ("GIF", "image/gif", "gif"),
    ],
)
async def test_the_four_formats_are_told_from_their_bytes(form: str, content_type: str, extension: str) -> None:
    picture = image(samples.picture(form, (64, 48)))
    picture.file.seek(0, io.SEEK_END)  # where the fetch leaves it
    assert await inspect(picture) == Format(content_type, extension, 64, 48)
    assert not picture.file.closed


async def test_a_cameras_jpeg_of_two_pictures_is_a_jpeg() -> None:
    file = io.BytesIO()
    Pillow.new("RGB", (8, 8)).save(file, "MPO", save_all=True, append_images=[Pillow.new("RGB", (8, 8))])
    assert (await inspect(image(file.getvalue()))).extension == "jpg"


@pytest.mark.parametrize("form", ["BMP", "TIFF", "ICO", "PPM"])
async def test_other_formats_are_no_image_to_us(form: str) -> None:
    with pytest.raises(PermanentError) as caught:
        await inspect(image(samples.picture(form)))
    assert caught.value.reason is Reason.NOT_AN_IMAGE


async def test_an_image_of_too_many_pixels_is_rejected_without_being_decoded() -> None:
    with pytest.raises(PermanentError) as caught:
        await inspect(image(samples.picture(size=(101, 100))))
    assert caught.value.reason is Reason.IMAGE_REJECTED
    assert "MAX_IMAGE_PIXELS" in caught.value.detail


@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]), st.data())
async def test_no_bytes_make_it_raise_anything_but_its_verdict(form: str, data: st.DataObject) -> None:
    whole = bytearray(samples.picture(form, (8, 8)))
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(0, min(60, len(whole) - 1)))] = data.draw(st.integers(0, 255))
    broken = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with suppress(PermanentError):
        await inspect(image(broken))
