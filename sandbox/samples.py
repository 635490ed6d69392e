"""Pictures of hills, one for each hour of the day, painted the same way every time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from random import Random
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFilter

Colour: TypeAlias = tuple[int, int, int]

_RIDGES = 5
_FRAMES = 8
_FRAME_MS = 140


@dataclass(frozen=True)
class Light:
    """The colours of an hour, and where the sun or the moon stands, as parts of width and height."""

    zenith: Colour
    horizon: Colour
    nearest_hill: Colour
    disc: Colour
    disc_at: tuple[float, float]
    stars: int = 0


DAWN = Light((94, 108, 168), (255, 196, 160), (48, 44, 82), (255, 240, 214), (0.30, 0.52))
NOON = Light((56, 134, 206), (206, 236, 246), (30, 84, 62), (255, 253, 236), (0.72, 0.20))
DUSK = Light((58, 38, 96), (252, 128, 82), (30, 18, 46), (255, 222, 150), (0.62, 0.58))
NIGHT = Light((10, 14, 40), (48, 66, 118), (6, 10, 26), (236, 238, 248), (0.76, 0.24), stars=90)


@dataclass(frozen=True)
class Sample:
    """A picture as a file: `format` is Pillow's name for it."""

    name: str
    format: str
    content_type: str
    prompt: str
    size: tuple[int, int]
    content: bytes


def samples() -> list[Sample]:
    """One picture in each of the four formats, all of different sizes."""
    return [
        _sample("dawn.jpg", "JPEG", "hills at dawn, soft light", (1600, 1000), DAWN, seed=1, quality=88),
        _sample("noon.png", "PNG", "green hills at noon", (1024, 1024), NOON, seed=12),
        _sample("dusk.webp", "WEBP", "hills at dusk, burning sky", (1280, 720), DUSK, seed=23, quality=85),
        _sample("night.gif", "GIF", "hills under twinkling stars", (480, 320), NIGHT, seed=34),
    ]


def picture(form: str, size: tuple[int, int], light: Light = NOON, *, seed: int = 1, **options: int) -> bytes:
    """A picture in one of Pillow's formats; another `seed` has other hills. A GIF moves if there are stars."""
    file = BytesIO()
    if form == "GIF" and light.stars:
        first, *others = (_paint(size, light, seed, moment / _FRAMES) for moment in range(_FRAMES))
        first.save(file, form, save_all=True, append_images=others, duration=_FRAME_MS, loop=0)
    else:
        _paint(size, light, seed).save(file, form, **options)
    return file.getvalue()


def _sample(
    name: str, form: str, prompt: str, size: tuple[int, int], light: Light, *, seed: int, **options: int
) -> Sample:
    return Sample(name, form, f"image/{form.lower()}", prompt, size, picture(form, size, light, seed=seed, **options))


def _paint(size: tuple[int, int], light: Light, seed: int, moment: float = 0) -> Image.Image:
    image = _sky(size, light)
    draw = ImageDraw.Draw(image)
    for at, brightness in _stars(size, light, seed, moment):
        draw.point(at, _between(light.zenith, (255, 255, 255), brightness))
    image = _with_disc(image, light)
    draw = ImageDraw.Draw(image)
    for ridge in range(_RIDGES):
        nearness = (ridge + 1) / _RIDGES
        draw.polygon(_outline(size, nearness, seed + ridge), _between(light.horizon, light.nearest_hill, nearness**0.8))
    return image


def _sky(size: tuple[int, int], light: Light) -> Image.Image:
    width, height = size
    column = Image.new("RGB", (1, height))
    column.putdata([_between(light.zenith, light.horizon, min(1.0, 1.4 * y / height)) for y in range(height)])
    return column.resize((width, height))


def _stars(size: tuple[int, int], light: Light, seed: int, moment: float) -> Iterator[tuple[tuple[int, int], float]]:
    width, height = size
    random = Random(seed)  # noqa: S311 # the same stars every night
    for _ in range(light.stars):
        at = (random.randrange(width), int(random.random() ** 1.5 * height * 0.6))
        yield at, 0.55 + 0.45 * math.sin(2 * math.pi * (moment + random.random()))


def _with_disc(image: Image.Image, light: Light) -> Image.Image:
    width, height = image.size
    radius = max(2, min(width, height) // 14)
    x, y = light.disc_at[0] * width, light.disc_at[1] * height
    glow, disc = Image.new("L", image.size), Image.new("L", image.size)
    ImageDraw.Draw(glow).ellipse((x - 2 * radius, y - 2 * radius, x + 2 * radius, y + 2 * radius), fill=150)
    ImageDraw.Draw(disc).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    glow = glow.filter(ImageFilter.GaussianBlur(radius))
    disc = disc.filter(ImageFilter.GaussianBlur(radius / 24))
    light_of_it = Image.new("RGB", image.size, light.disc)
    return Image.composite(light_of_it, Image.composite(light_of_it, image, glow), disc)


def _outline(size: tuple[int, int], nearness: float, seed: int) -> list[tuple[float, float]]:
    """A ridge from left to right and back along the bottom; nearer ones are lower and steeper."""
    width, height = size
    random = Random(seed)  # noqa: S311 # the same hills every time
    waves = [(random.uniform(0.6, 1.4) * 2**octave, random.uniform(0, math.tau), 0.5**octave) for octave in range(5)]
    base, swing = 0.50 + 0.36 * nearness, 0.05 + 0.05 * nearness

    def crest(x: float) -> float:
        wave = sum(part * math.sin(math.tau * often * x / width + start) for often, start, part in waves)
        return height * (base + swing * wave)

    step = max(1, width // 400)
    return [(0, height), *((x, crest(x)) for x in range(0, width + step, step)), (width + step, height)]


def _between(one: Colour, other: Colour, part: float) -> Colour:
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(one, other, strict=True))
    return red, green, blue
