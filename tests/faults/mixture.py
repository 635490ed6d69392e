"""What generators publish, good and bad: events of three kinds of sources, and what each must become."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import md5
from itertools import count
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

from fastcrc import crc64
from PIL import Image

from consumer.core.records import fingerprint
from producer.publisher import image_generated
from schemas.events import ImageGenerated
from schemas.reasons import Reason
from tests.e2e.image_host import GONE, Answer, ImageHost

_SOURCE: Final = "/generators/faults"
_USERS: Final = ("ada@factory-buy.com", "grace|7", "linus")
_SMALL: Final = (12, 8)
_LARGE: Final = (640, 640)  # more than waits in memory, and is sent in slices
_LARGE_EVERY: Final = 199
_KINDS: Final = ("http", "file", "data")
_FORBIDDEN: Final = "http://169.254.169.254/latest/meta-data/"

Name: TypeAlias = tuple[str | None, str]
"""Source and id of an event; of a message that names none, nothing and its fingerprint."""


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes, as far as they must be known to be told from others."""

    size_bytes: int
    md5: str
    crc64: str

    @classmethod
    def of(cls, content: bytes) -> "Content":
        """What is known of these bytes."""
        return cls(len(content), md5(content, usedforsecurity=False).hexdigest().upper(), str(crc64.xz(content)))


@dataclass(frozen=True, slots=True)
class Planned:
    """A message, and what it must become: an object of these bytes, or a failure for this reason."""

    body: bytes
    message_id: str
    event: ImageGenerated | None
    """What the body says; none if it cannot be read."""
    fate: Content | Reason
    headers: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> Name:
        """Who the event is."""
        if self.event is None:
            return None, fingerprint(self.message_id.encode(), self.body)
        return self.event.source, self.event.id


class Mixture:
    """Makes events without end, each with an image of its own, the same for the same seed.

    Args:
        host: Where `http:` images are.
        web: Makes of a URL of the host's the one under which workers reach it.
        temp_dir: Where `file:` images are.
        poison: The share of events that must fail.
        duplicates: The share of events that are published a second time, soon after the first.
        seed: Another one makes another order.
    """

    def __init__(
        self,
        host: ImageHost,
        web: Callable[[str], str],
        temp_dir: Path,
        *,
        poison: float = 0.05,
        duplicates: float = 0.05,
        seed: int = 1,
    ) -> None:
        self._host = host
        self._web = web
        self._temp_dir = temp_dir
        self.poison = poison
        self.duplicates = duplicates
        self._random = Random(seed)
        self._numbers = count(1)

    def events(self, distinct: int) -> Iterator[Planned]:
        """So many events, and some of them again a few places later."""
        again: list[Planned] = []
        for _ in range(distinct):
            bad = self._random.random() < self.poison
            yield (planned := self.bad() if bad else self.good())
            if self._random.random() < self.duplicates:
                again.append(planned)
            if again and self._random.random() < 0.3:
                yield again.pop(0)
        yield from again

    def good(self, kind: str | None = None) -> Planned:
        """An event that must be stored; its source is of this kind, or of the next one in turn."""
        number = next(self._numbers)
        content = picture(number, _SMALL if number % _LARGE_EVERY else _LARGE)
        kind = kind or _KINDS[number % len(_KINDS)]
        if len(content) > 500_000 and kind == "data":
            kind = "file"  # an event may not be that large
        return self._event(number, self._place(kind, number, content), Content.of(content))

    def bad(self, reason: Reason | None = None) -> Planned:
        """An event that must fail, for this reason, or for the next one in turn."""
        number = next(self._numbers)
        reason = (
            reason
            or (
                Reason.NOT_AN_IMAGE,
                Reason.UNDECODABLE,
                Reason.SOURCE_FORBIDDEN,
                Reason.SOURCE_GONE,
            )[number % 4]
        )
        match reason:
            case Reason.UNDECODABLE:
                return Planned(b'{"jobId": \xff%d' % number, f"mangled-{number}", None, reason)
            case Reason.NOT_AN_IMAGE:
                return self._event(number, self._place("file", number, b"<html>%d" % number), reason)
            case Reason.SOURCE_FORBIDDEN:
                return self._event(number, f"{_FORBIDDEN}{number}", reason)
            case Reason.SOURCE_GONE:
                return self._event(number, self._give(f"{number}.png", GONE), reason)
            case _:
                raise ValueError(f"no event is known that fails as {reason}")

    def named(self, name: str, content: bytes, fate: Reason | None = None, *before: Answer) -> Planned:
        """An event whose image has this name at the host, which gives other answers before it."""
        url = self._give(name, *before, content)
        return self._event(next(self._numbers), url, fate or Content.of(content))

    def _give(self, name: str, *answers: Answer | bytes) -> str:
        return self._web(self._host.give(name, *answers))

    def _place(self, kind: str, number: int, content: bytes) -> str:
        match kind:
            case "data":
                return f"data:image/png;base64,{base64.b64encode(content).decode()}"
            case "file":
                path = self._temp_dir / f"{number}.png"
                path.write_bytes(content)
                return path.as_uri()
            case _:
                return self._give(f"{number}.png", content)

    def _event(self, number: int, url: str, fate: Content | Reason) -> Planned:
        event = image_generated(
            image_url=url,
            job_id=f"job-{number}",
            user_id=_USERS[number % len(_USERS)],
            source=_SOURCE,
            id=f"event-{number}",
            prompt=f"a red fox, the {number}th",
            metadata={"seed": number, "nested": {"b": [1.5, None], "a": "ü"}},
        )
        return Planned(event.body(), event.id, event, fate)


def picture(number: int, size: tuple[int, int] = _SMALL) -> bytes:
    """A PNG that no other number has."""
    width, height = size
    file = io.BytesIO()
    Image.frombytes("RGB", size, Random(number).randbytes(3 * width * height)).save(file, "PNG", compress_level=1)
    return file.getvalue()
