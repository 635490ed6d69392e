"""The image source over HTTP, against a real web server on this machine."""

import asyncio
import gzip
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from consumer.adapters.address_guard import AddressGuard
from consumer.adapters.file_source import FileSource
from consumer.adapters.host_turns import HostTurns
from consumer.adapters.http_source import HttpSource
from consumer.adapters.image_source import ImageSources
from consumer.core.errors import BusyError, PermanentError, TransientError, UploadError
from schemas.reasons import Reason
from tests.integration.canned_server import CannedServer, Then

MAX_BYTES = 3_000_000


class Host:
    """A web server whose answers a test chooses by path."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.released = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:  # noqa: C901, PLR0911 a table
        self.asked.append(request.raw_path)
        self.headers = dict(request.headers)
        match request.path.strip("/").split("/"):
            case ["status", code]:
                return web.Response(status=int(code))
            case ["busy", code]:
                return web.Response(status=int(code), headers={"Retry-After": request.query["wait"]})
            case ["bytes", count]:
                return web.Response(body=b"x" * int(count))
            case ["unsized", count]:
                response = web.StreamResponse()
                await response.prepare(request)
                for _ in range(int(count) // 1000):
                    await response.write(b"x" * 1000)
                return response
            case ["cut"]:
                response = web.StreamResponse(headers={"Content-Length": "1000"})
                await response.prepare(request)
                await response.write(b"x" * 10)
                assert request.transport is not None
                request.transport.abort()
                return response
            case ["stall"]:
                await self.released.wait()
                return web.Response()
            case ["gzip"]:
                return web.Response(body=gzip.compress(b"x" * 100_000), headers={"Content-Encoding": "gzip"})
            case ["to", *_]:
                return web.Response(status=302, headers={"Location": request.query["url"]})
            case ["loop"]:
                return web.Response(status=302, headers={"Location": "/loop"})
            case _:
                return web.Response(body=b"fox")


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", host.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield host
    host.released.set()
    await runner.cleanup()


class Sources:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.opened: list[HttpSource] = []

    def make(
        self,
        networks: Sequence[str] = ("127.0.0.0/8",),
        hosts: Sequence[str] = (),
        turns: HostTurns | None = None,
    ) -> ImageSources:
        guard = AddressGuard(hosts, [ip_network(network) for network in networks])
        self.opened.append(HttpSource(guard, turns or HostTurns(64, timeout_s=60), max_bytes=MAX_BYTES))
        files = FileSource(self.directory, max_bytes=MAX_BYTES)
        return ImageSources(self.opened[-1], files, directory=self.directory, max_bytes=MAX_BYTES, timeout_s=2)


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[Sources]:
    sources = Sources(tmp_path)
    yield sources
    for source in sources.opened:
        await source.close()


async def verdict(source: ImageSources, url: str) -> UploadError:
    with pytest.raises(UploadError) as caught:
        async with source.open(url):
            raise AssertionError("opened")
    return caught.value


@pytest.mark.parametrize("path", ["bytes/0", "bytes/1000", "bytes/2999999", "unsized/2999000"])
async def test_an_image_is_fetched_whole_and_nothing_stays_in_the_directory(
    host: Host, sources: Sources, path: str
) -> None:
    async with sources.make().open(f"{host.url}/{path}") as image:
        assert image.size_bytes == int(path.partition("/")[2])
        image.file.seek(0)
        assert image.file.read() == b"x" * image.size_bytes
        assert list(sources.directory.iterdir()) == []
    assert list(sources.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "kind", "reason", "rungs"),
    [
        ("status/404", TransientError, Reason.SOURCE_GONE, 2),
        ("status/410", TransientError, Reason.SOURCE_GONE, 2),
        ("status/403", TransientError, Reason.SOURCE_FORBIDDEN, 2),
        ("status/401", TransientError, Reason.SOURCE_FORBIDDEN, 2),
        ("status/400", PermanentError, Reason.SOURCE_FORBIDDEN, None),
        ("status/429", TransientError, Reason.SOURCE_UNAVAILABLE, 1_000_000),
        ("status/500", TransientError, Reason.SOURCE_UNAVAILABLE, 1_000_000),
        ("status/503", TransientError, Reason.SOURCE_UNAVAILABLE, 1_000_000),
        ("status/204", TransientError, Reason.SOURCE_UNAVAILABLE, 1_000_000),
        ("status/304", TransientError, Reason.SOURCE_UNAVAILABLE, 1_000_000),
        ("cut", TransientError, Reason.SOURCE_UNAVAILABLE, 1_000_000),
        ("stall", TransientError, Reason.SOURCE_UNAVAILABLE, 1_000_000),
        ("loop", TransientError, Reason.SOURCE_UNAVAILABLE, 1_000_000),
        ("bytes/3000001", PermanentError, Reason.TOO_LARGE, None),
        ("unsized/3001000", PermanentError, Reason.TOO_LARGE, None),
        ("gzip", PermanentError, Reason.NOT_AN_IMAGE, None),
    ],
)
async def test_each_answer_has_its_blame(
    host: Host, sources: Sources, path: str, kind: type[UploadError], reason: Reason, rungs: int | None
) -> None:
    error = await verdict(sources.make(), f"{host.url}/{path}")
    assert (type(error), error.reason, getattr(error, "rungs", None)) == (kind, reason, rungs)
    assert list(sources.directory.iterdir()) == []


async def wait_of(host: Host, source: ImageSources, value: str, status: int = 503) -> float:
    url = URL(f"{host.url}/busy/{status}").with_query(wait=value)
    error = await verdict(source, str(url))
    assert isinstance(error, TransientError)
    return error.not_before_s


@pytest.mark.parametrize("status", [429, 503, 500, 404, 403, 202, 304])
async def test_a_source_that_says_when_to_come_again_is_heard_whatever_it_answers(
    host: Host, sources: Sources, status: int
) -> None:
    assert await wait_of(host, sources.make(), "120", status) == 120


async def test_the_moment_to_come_again_may_be_a_date(host: Host, sources: Sources) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=90)
    assert 80 < await wait_of(host, sources.make(), format_datetime(moment, usegmt=True)) <= 90


@pytest.mark.parametrize(
    "value", ["", "-5", "1.5", "soon", "86401", "9" * 5000, "Wed, 21 Oct 2015 07:28:00 GMT", "Mon, 01 Jan 9999 0:0 GMT"]
)
async def test_a_moment_that_is_past_absurd_or_nonsense_is_ignored(host: Host, sources: Sources, value: str) -> None:
    assert await wait_of(host, sources.make(), value) == 0


async def test_a_server_or_a_name_that_is_not_there_may_come_back(sources: Sources) -> None:
    for url in ("http://127.0.0.1:1/x.png", "http://no-such-host.invalid/x.png"):
        error = await verdict(sources.make(), url)
        assert isinstance(error, TransientError)
        assert error.reason is Reason.SOURCE_UNAVAILABLE


async def test_a_forbidden_address_is_refused_by_literal_by_name_and_behind_a_redirect(
    host: Host, sources: Sources
) -> None:
    port = host.url.rpartition(":")[2]
    strict = sources.make(networks=())
    for url in (f"{host.url}/x", f"http://localhost:{port}/x", f"http://[::ffff:127.0.0.1]:{port}/x"):
        error = await verdict(strict, url)
        assert isinstance(error, PermanentError)
        assert error.reason is Reason.SOURCE_FORBIDDEN
        assert "SOURCE_ALLOWED_NETWORKS" in error.detail
    assert host.asked == []
    lax = sources.make()
    for target in ("http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "file:///etc/passwd"):
        error = await verdict(lax, f"{host.url}/to?url={target}")
        assert error.reason is Reason.SOURCE_FORBIDDEN


async def test_a_name_with_one_forbidden_address_is_forbidden(
    host: Host, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(host.url.rpartition(":")[2])

    def both(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.1", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    error = await verdict(sources.make(), f"http://rebinding.test:{port}/x")
    assert error.reason is Reason.SOURCE_FORBIDDEN
    assert host.asked == []


async def test_only_listed_hosts_are_asked_even_behind_a_redirect(host: Host, sources: Sources) -> None:
    source = sources.make(hosts=("127.0.0.1",))
    error = await verdict(source, f"{host.url}/to?url=http://localhost/x")
    assert "SOURCE_ALLOWED_HOSTS" in error.detail
    async with source.open(f"{host.url}/x"):
        pass


async def test_a_redirect_is_followed_and_a_signed_url_arrives_as_it_was_signed(host: Host, sources: Sources) -> None:
    signed = "/a%2Fb%20c.png?Signature=a%2Bb%2F%3D&x=1+2"
    async with sources.make().open(f"{host.url}{signed}"):
        pass
    assert host.asked == [signed]
    async with sources.make().open(f"{host.url}/to?url=/fox.png") as image:
        assert image.size_bytes == 3


async def test_nothing_of_this_machine_is_told_to_the_source(
    host: Host, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with sources.make().open(f"{host.url}/fox.png"):
        pass
    assert host.headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in host.headers
    assert "Authorization" not in host.headers


@pytest.mark.parametrize("url", ["http://[", "http://host:99999/x", "https://user@/x"])
async def test_a_url_that_nobody_can_ask_fails_at_once(sources: Sources, url: str) -> None:
    error = await verdict(sources.make(), url)
    assert isinstance(error, PermanentError)


@pytest.mark.parametrize(
    "url", ["data:image/png,plain", "data:image/png;base64,!!!", "data:;base64,A", "data:image/png;base64"]
)
async def test_a_data_url_must_be_base64(sources: Sources, url: str) -> None:
    error = await verdict(sources.make(), url)
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.INVALID_EVENT


async def test_a_data_url_is_decoded_and_its_size_is_bounded(sources: Sources) -> None:
    async with sources.make().open("data:image/png;base64,Zm94") as image:
        assert image.file.read() == b"fox"
    async with sources.make().open("DATA:image/png;charset=x;BASE64,Zm94%3D%3D") as image:
        assert image.size_bytes == 3
    error = await verdict(sources.make(), "data:;base64," + "A" * 4_000_004)
    assert error.reason is Reason.TOO_LARGE


async def test_a_host_that_does_not_answer_takes_its_share_and_no_other_hosts(host: Host, sources: Sources) -> None:
    source = sources.make(turns=HostTurns(1, timeout_s=60, patience_s=0))
    async with CannedServer(then=Then.SILENCE) as silent:
        waiting = asyncio.create_task(verdict(source, f"{silent.url}/fox.png"))
        while not silent.asked:  # noqa: ASYNC110 nothing tells that it was asked
            await asyncio.sleep(0.001)
        assert isinstance(await verdict(source, f"{silent.url}/fox.png"), BusyError)
        async with source.open(f"{host.url}/fox.png") as image:
            assert image.size_bytes == 3
        assert isinstance(await waiting, TransientError)
        assert silent.asked == 1


async def test_a_source_that_redirects_in_a_circle_is_left_after_five(host: Host, sources: Sources) -> None:
    error = await verdict(sources.make(), f"{host.url}/loop")
    assert error.detail.startswith("more than 5 redirects")


async def test_a_source_that_trickles_is_given_up(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources.make()
    monkeypatch.setattr(source, "_timeout_s", 0.01)

    async def trickle(_url: str) -> AsyncGenerator[bytes]:
        yield b"x"
        await asyncio.sleep(3)  # longer than it is given
        yield b"x"

    monkeypatch.setattr(sources.opened[-1], "chunks", trickle)
    error = await verdict(source, "https://cdn.test/fox.png")
    assert isinstance(error, TransientError)
    assert "SOURCE_TIMEOUT_S" in error.detail
