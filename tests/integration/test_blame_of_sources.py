"""Whose fault it is when there is no image: each status, each bad answer, each kind of file."""

import os
import resource
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from consumer.adapters.address_guard import AddressGuard
from consumer.adapters.file_source import FileSource
from consumer.adapters.host_turns import HostTurns
from consumer.adapters.http_source import HttpSource
from consumer.adapters.image_source import ImageSources
from tests.integration.canned_server import CannedServer, Then, http
from tests.integration.verdict import verdict

MAX_BYTES: Final = 2_000_000
MAX_IN_MEMORY_BYTES: Final = 1024 * 1024
NOBODY: Final = 65534

AWAY: Final = "retried source_unavailable"
GONE: Final = "retried source_gone on 2 rungs"
KEPT: Final = "retried source_forbidden on 2 rungs"  # some stores say so of what is not there yet
FORBIDDEN: Final = "fails source_forbidden"
INVALID: Final = "fails invalid_event"
TOO_LARGE: Final = "fails too_large"
NO_IMAGE: Final = "fails not_an_image"
OUR_DISK: Final = "held source_unavailable (temp_dir)"

STATUSES: Final = {
    **dict.fromkeys((201, 202, 203, 204, 206), AWAY),  # it answers, and not with the image
    **dict.fromkeys((300, 301, 302, 303, 304, 305, 307, 308), AWAY),  # and does not say where to
    **dict.fromkeys((401, 403), KEPT),
    **dict.fromkeys((404, 410), GONE),
    **dict.fromkeys((408, 425, 429), AWAY),
    **dict.fromkeys((400, 402, *range(405, 408), 409, *range(411, 419), 421, 422, 424, 451, 499), FORBIDDEN),
    **dict.fromkeys((500, 501, 502, 503, 504, 507, 520, 522, 524, 599, 999), AWAY),
}

HEAD: Final = b"HTTP/1.1 200 OK\r\n"
ANSWERS: Final = {
    "no answer": (b"", Then.CLOSE, AWAY),
    "a reset": (b"", Then.RESET, AWAY),
    "silence": (b"", Then.SILENCE, AWAY),
    "silence after the headers": (HEAD + b"Content-Length: 10\r\n\r\nfox", Then.SILENCE, AWAY),
    "a reset in the middle": (HEAD + b"Content-Length: 10\r\n\r\nfox", Then.RESET, AWAY),
    "a body that ends early": (HEAD + b"Content-Length: 10\r\n\r\nfox", Then.CLOSE, AWAY),
    "chunks that end early": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nfox\r\n", Then.CLOSE, AWAY),
    "chunks that are none": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nfox\r\n", Then.CLOSE, AWAY),
    "something that is not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", Then.CLOSE, AWAY),
    "a header without an end": (HEAD + b"X: " + b"x" * 20_000 + b"\r\n\r\n", Then.CLOSE, AWAY),
    "two lengths": (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nfox", Then.CLOSE, AWAY),
    "a redirect to itself": (http(302, headers="Location: {url}/again\r\n"), Then.CLOSE, AWAY),
    "a redirect to no URL": (http(302, headers="Location: http://[/\r\n"), Then.CLOSE, AWAY),
    "a redirect to no port": (
        http(302, headers="Location: http://127.0.0.1:99999/\r\n"),
        Then.CLOSE,
        AWAY,
    ),
    "a redirect to nowhere": (http(302, headers="Location: http://127.0.0.1:1/\r\n"), Then.CLOSE, AWAY),
    "a redirect to a name that is none": (http(302, headers=f"Location: http://{'x' * 70}/\r\n"), Then.CLOSE, AWAY),
    "a redirect to a file": (http(302, headers="Location: file:///etc/passwd\r\n"), Then.CLOSE, FORBIDDEN),
    "a redirect into our network": (http(302, headers="Location: http://10.0.0.1/\r\n"), Then.CLOSE, FORBIDDEN),
    "a length that is too large": (HEAD + b"Content-Length: 2000001\r\n\r\n", Then.CLOSE, TOO_LARGE),
    "a body that is too large": (HEAD + b"\r\n" + b"x" * (MAX_BYTES + 1), Then.CLOSE, TOO_LARGE),
    "a compressed body": (http(200, b"\x1f\x8b", "Content-Encoding: gzip\r\n"), Then.CLOSE, NO_IMAGE),
}

URLS: Final = {
    "http://127.0.0.1:1/fox.png": AWAY,
    "http://no-such-host.invalid/fox.png": AWAY,
    "https://{plain}/fox.png": AWAY,  # TLS is not spoken there
    "https://{self_signed}/fox.png": AWAY,  # the certificate may be renewed
    "http://10.0.0.1/fox.png": FORBIDDEN,
    "http://[::1]/fox.png": FORBIDDEN,
    "http://169.254.169.254/latest/meta-data": FORBIDDEN,
    "ftp://127.0.0.1/fox.png": FORBIDDEN,
    "http:///fox.png": FORBIDDEN,
    "http://[/fox.png": INVALID,
    "http://127.0.0.1:99999/fox.png": INVALID,
    "data:image/png,plain": INVALID,
    "data:image/png;base64,!!!": INVALID,
    "data:;base64," + "A" * 2_700_000: TOO_LARGE,
}

FILES: Final = {
    "missing.png": GONE,
    "missing/fox.png": GONE,
    "forbidden.png": KEPT,
    "forbidden/fox.png": KEPT,
    "link.png": FORBIDDEN,
    "way-out/fox.png": FORBIDDEN,
    "dangling.png": FORBIDDEN,
    "directory": FORBIDDEN,
    "pipe.png": FORBIDDEN,
    "fox.png/inside": FORBIDDEN,
    "../fox.png": FORBIDDEN,
    "": FORBIDDEN,
    "x" * 300: FORBIDDEN,
    "x%00.png": FORBIDDEN,
    "large.png": TOO_LARGE,
}

VERDICTS: Final = [
    *STATUSES.values(),
    *(verdict for _, _, verdict in ANSWERS.values()),
    *URLS.values(),
    *FILES.values(),
    OUR_DISK,
]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A TEMP_DIR that another user may enter, with one file of each kind."""
    with tempfile.TemporaryDirectory() as name:
        outer, inner = Path(name), Path(name, "shared")
        (outer / "fox.png").write_bytes(b"fox")
        for made in (inner, inner / "directory", inner / "forbidden"):
            made.mkdir()
        for file, size_bytes in (
            ("fox.png", 3),
            ("forbidden.png", 3),
            ("forbidden/fox.png", 3),
            ("large.png", MAX_BYTES + 1),
        ):
            (inner / file).write_bytes(b"x" * size_bytes)
        (inner / "link.png").symlink_to(inner / "fox.png")
        (inner / "dangling.png").symlink_to(inner / "missing.png")
        (inner / "way-out").symlink_to(outer)
        os.mkfifo(inner / "pipe.png")
        outer.chmod(0o755)
        for kept in ("forbidden", "forbidden.png"):
            (inner / kept).chmod(0)
        yield inner
        (inner / "forbidden").chmod(0o700)


@contextmanager
def common_user() -> Iterator[None]:
    """Inside, permissions hold for us, even if the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
async def sources(directory: Path) -> AsyncIterator[ImageSources]:
    guard = AddressGuard([], [ip_network("127.0.0.1/32")])
    web = HttpSource(guard, HostTurns(64, timeout_s=60), max_bytes=MAX_BYTES)
    files = FileSource(directory, max_bytes=MAX_BYTES)
    yield ImageSources(web, files, directory=directory, max_bytes=MAX_BYTES, timeout_s=10)
    await web.close()


async def fetch(sources: ImageSources, url: str) -> None:
    async with sources.open(url):
        pass


@pytest.mark.parametrize(("status", "expected"), STATUSES.items())
async def test_each_status_has_its_blame(sources: ImageSources, status: int, expected: str) -> None:
    async with CannedServer(http(status, b"" if status in (204, 304) else b"fox")) as host:
        assert await verdict(fetch(sources, f"{host.url}/fox.png")) == expected


@pytest.mark.parametrize("answer", ANSWERS)
async def test_each_way_of_answering_badly_has_its_blame(
    sources: ImageSources, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, then, expected = ANSWERS[answer]
    if then is Then.SILENCE:
        monkeypatch.setattr(sources, "_timeout_s", 0.3)
    async with CannedServer(data, then) as host:
        assert await verdict(fetch(sources, f"{host.url}/fox.png")) == expected


@pytest.mark.parametrize("url", URLS, ids=lambda url: url[:40])
async def test_each_url_that_cannot_be_asked_has_its_blame(sources: ImageSources, tmp_path: Path, url: str) -> None:
    tls = self_signed(tmp_path)
    async with CannedServer(http(200)) as plain, CannedServer(http(200), tls=tls) as secure:
        hosts = {"plain": plain.url.partition("//")[2], "self_signed": secure.url.partition("//")[2]}
        asked = url if url.startswith("data:") else url.format(**hosts)
        assert await verdict(fetch(sources, asked)) == URLS[url]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path[:40])
async def test_each_kind_of_file_has_its_blame(sources: ImageSources, directory: Path, path: str) -> None:
    with common_user():
        assert await verdict(fetch(sources, f"file://{directory}/{path}")) == FILES[path]


@contextmanager
def missing(directory: Path) -> Iterator[None]:
    """Inside, there is no such directory."""
    elsewhere = directory.rename(directory.parent / "elsewhere")
    yield
    elsewhere.rename(directory)


@contextmanager
def forbidden(directory: Path) -> Iterator[None]:
    """Inside, nobody may enter the directory."""
    directory.chmod(0)
    with common_user():
        yield
    directory.chmod(0o755)


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("trouble", [missing, forbidden])
async def test_a_temp_dir_that_nobody_can_use_is_our_own_trouble(
    sources: ImageSources, directory: Path, scheme: str, trouble: Callable[[Path], AbstractContextManager[None]]
) -> None:
    async with CannedServer(http(200, b"x" * (MAX_IN_MEMORY_BYTES + 1))) as host:
        url = f"file://{directory}/fox.png" if scheme == "file" else f"{host.url}/large.png"
        with trouble(directory):
            found = await verdict(fetch(sources, url))
    assert found == OUR_DISK


@pytest.mark.parametrize("missing_bytes", [1, 5_000, 500_000])
async def test_a_temp_dir_that_is_full_is_our_own_trouble_to_the_last_byte(
    sources: ImageSources, missing_bytes: int
) -> None:
    size_bytes = MAX_IN_MEMORY_BYTES + 600_000
    async with CannedServer(http(200, b"x" * size_bytes)) as host:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes - missing_bytes, hard))
        try:
            assert await verdict(fetch(sources, f"{host.url}/large.png")) == OUR_DISK
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def self_signed(directory: Path) -> ssl.SSLContext:
    """A server's context with a certificate that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
