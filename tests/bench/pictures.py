"""Noise as PNG: it does not compress, so that a size can be had on demand."""

import io
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from random import Random

from fastcrc import crc64
from PIL import Image


@dataclass(frozen=True)
class Picture:
    """One PNG that every event of a run names."""

    name: str
    content: bytes

    @cached_property
    def crc64(self) -> int:
        return crc64.xz(self.content)


def noise(name: str, size_bytes: int) -> Picture:
    """A PNG of about that size, the same in every run."""
    side = isqrt(size_bytes // 3)
    pixels = Random(name).randbytes(3 * side * side)
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(file, "PNG", compress_level=1)
    return Picture(name, file.getvalue())
