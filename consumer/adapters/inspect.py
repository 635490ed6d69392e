"""Formats, told from the bytes by Pillow's header parsing; what an event or a server says does not count."""

from typing import Final

from PIL import Image as Pillow
from PIL import UnidentifiedImageError, WebPImagePlugin  # noqa: F401 its import registers WebP

from consumer.core.errors import PermanentError, TransientError
from consumer.core.ports import Format, Image
from schemas.reasons import Reason

_FORMATS: Final = {
    "JPEG": ("image/jpeg", "jpg"),
    "MPO": ("image/jpeg", "jpg"),  # what a camera's JPEG with a second picture is called
    "PNG": ("image/png", "png"),
    "WEBP": ("image/webp", "webp"),
    "GIF": ("image/gif", "gif"),
}
_TRIED: Final = ("JPEG", "PNG", "WEBP", "GIF")

Pillow.MAX_IMAGE_PIXELS = None  # the limit is ours, and an error instead of a warning


class PillowInspector:
    """Reads a header in some microseconds; no pixel is decoded."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    async def __call__(self, image: Image) -> Format:
        """Format and size: see `Inspector`."""
        image.file.seek(0)
        try:
            with Pillow.open(image.file, formats=_TRIED) as picture:
                name, (width, height) = picture.format, picture.size
        except UnidentifiedImageError as error:
            detail = f"{image.size_bytes} bytes that are no JPEG, PNG, WebP or GIF"
            raise PermanentError(Reason.NOT_AN_IMAGE, detail) from error
        except Exception as error:  # Pillow raises more than it documents
            if isinstance(error, OSError) and error.errno is not None:
                detail = f"the file could not be read: {error.strerror}"
                raise TransientError(Reason.SOURCE_UNAVAILABLE, detail) from error
            raise PermanentError(Reason.NOT_AN_IMAGE, f"the header is broken: {error}") from error
        if width < 1 or height < 1:
            raise PermanentError(Reason.NOT_AN_IMAGE, f"the image is {width} x {height} pixels")
        if width * height > self._max_pixels:
            detail = f"{width} x {height} pixels are more than {self._max_pixels} (MAX_IMAGE_PIXELS)"
            raise PermanentError(Reason.IMAGE_REJECTED, detail)
        content_type, extension = _FORMATS[name or ""]
        return Format(content_type, extension, width, height)
