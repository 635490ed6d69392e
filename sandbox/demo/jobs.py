"""What the demo publishes, and what must become of it."""

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from aiohttp import web

from producer.publisher import image_generated
from producer.temp_file import place
from sandbox.samples import Sample
from schemas.events import ImageGenerated
from schemas.reasons import Reason

USER: Final = "demo@example.com"

_SOURCE: Final = "/sandbox/demo"
_PRETENDER: Final = "pretender.png"
_NO_IMAGE: Final = b"<!doctype html><title>502 Bad Gateway</title><h1>Bad Gateway</h1>"
# Where clouds keep the keys of their machines: what a hostile event would ask for.
_FORBIDDEN_URL: Final = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"


@dataclass(frozen=True)
class Job:
    """An event, and how it must end: with this content in the bucket, or else for this reason."""

    about: str
    event: ImageGenerated
    content: bytes = b""
    reason: Reason | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return self.event.data.job_id


@asynccontextmanager
async def gallery(pictures: Sequence[Sample]) -> AsyncIterator[str]:
    """The pictures are served over HTTP, and a page that pretends to be one; what stands before their names."""
    files = {picture.name: (picture.content, picture.content_type) for picture in pictures}
    files[_PRETENDER] = (_NO_IMAGE, "image/png")

    async def answer(request: web.BaseRequest) -> web.Response:
        content, content_type = files[request.path.lstrip("/")]
        return web.Response(body=content, content_type=content_type)

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def jobs(pictures: Sequence[Sample], gallery_url: str, temp_dir: Path, run_id: str) -> list[Job]:
    """One job for each picture, by all the ways in which an event may name its image; and two that must fail."""
    made = []
    for picture in pictures:
        match picture.format:
            case "PNG":
                by, url = "file:", place(BytesIO(picture.content), temp_dir, suffix=".png").as_uri()
            case "GIF":
                by, url = "data:", f"data:{picture.content_type};base64,{b64encode(picture.content).decode()}"
            case _:
                by, url = "http:", f"{gallery_url}/{picture.name}"
        about = f"{picture.format} {picture.size[0]} x {picture.size[1]} by {by}"
        event = _event(f"{Path(picture.name).stem}-{run_id}", url, picture.prompt)
        made.append(Job(about, event, picture.content))
    pretender = _event(f"pretender-{run_id}", f"{gallery_url}/{_PRETENDER}", "an HTML page named .png")
    forbidden = _event(f"forbidden-{run_id}", _FORBIDDEN_URL, "the keys of a cloud machine")
    return [
        *made,
        Job("HTML page named .png", pretender, reason=Reason.NOT_AN_IMAGE),
        Job("cloud metadata address", forbidden, reason=Reason.SOURCE_FORBIDDEN),
    ]


def _event(job_id: str, url: str, prompt: str) -> ImageGenerated:
    return image_generated(
        image_url=url, job_id=job_id, user_id=USER, source=_SOURCE, prompt=prompt, metadata={"model": "sandbox"}
    )
