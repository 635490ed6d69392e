"""Each fault of the proxy is one, between a client and a server that says everything again."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.e2e.background import background
from tests.faults.proxy import Proxy

TIMEOUT_S = 5


class Echo:
    """A server that says everything again; `heard` is what arrived, in pieces, and `ended` how many have left."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.ended = asyncio.Semaphore(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.heard.append(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            self.heard.append(b"reset")
        finally:
            writer.close()
            self.ended.release()


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, words: bytes) -> None:
        self.writer.write(words)

    async def hears(self, words: bytes) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            assert await self.reader.readexactly(len(words)) == words

    async def hears_the_end(self, last_words: bytes = b"") -> None:
        async with asyncio.timeout(TIMEOUT_S):
            assert await self.reader.read() == last_words

    async def hears_nothing(self) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.reader.read(1), 0.1)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Proxy(f"amqp://guest:guest@127.0.0.1:{port}/vhost?heartbeat=10") as proxy:
            yield proxy


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Client]:
    port = int(proxy.url("http://x/").rsplit(":", 1)[1].strip("/"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    async with connected(proxy) as client:
        client.say(b"hello")
        await client.hears(b"hello")
        yield client


async def ended(echo: Echo) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        await echo.ended.acquire()


def test_a_url_keeps_all_but_its_address() -> None:
    proxy = Proxy("amqp://guest:se%40cret@broker/vhost?heartbeat=10")
    address = proxy.url().removeprefix("amqp://guest:se%40cret@").removesuffix("/vhost?heartbeat=10")
    host, port = address.split(":")
    assert (host, port.isdigit()) == ("127.0.0.1", True)
    assert proxy.url("postgresql://postgres@db:5432/other") == f"postgresql://postgres@{address}/other"
    assert proxy.url("http://oss/bucket") == f"http://{address}/bucket"


async def test_without_a_fault_everything_comes_through_and_an_end_is_told(client: Client, echo: Echo) -> None:
    much = bytes(range(256)) * 20_000
    client.say(much)
    await client.hears(much)
    client.writer.write_eof()
    await client.hears_the_end()
    await ended(echo)


async def test_thousands_of_messages_come_through_in_a_second(client: Client) -> None:
    began = time.process_time()  # of client, proxy and server; others have their own
    for _ in range(1000):  # one at a time, there and back
        client.say(b"m" * 500)
        await client.hears(b"m" * 500)
    assert time.process_time() - began < 1


async def test_latency_delays_and_does_not_slow(proxy: Proxy, client: Client) -> None:
    proxy.to_server.latency_s, proxy.to_server.jitter_s = 0.1, 0.05
    began = time.perf_counter()
    for number in range(40):
        client.say(b"%02d" % number)
        await asyncio.sleep(0.001)  # else they are one piece
    await client.hears(b"".join(b"%02d" % number for number in range(40)))
    assert 0.1 < time.perf_counter() - began < 40 * 0.1 / 2


async def test_a_narrow_way_slows_its_sender(proxy: Proxy, client: Client) -> None:
    proxy.to_client.bytes_per_s = 100_000
    began = time.perf_counter()
    client.say(b"x" * 20_000)
    await client.hears(b"x" * 20_000)
    assert time.perf_counter() - began > 0.15


async def test_slices_arrive_one_by_one(proxy: Proxy, client: Client, echo: Echo) -> None:
    proxy.to_server.slice_bytes = 3
    client.say(b"0123456789")
    await client.hears(b"0123456789")
    assert len(echo.heard[1:]) > 1
    assert max(map(len, echo.heard[1:])) <= 6


async def test_a_reset_is_one_at_both_ends_and_the_next_connection_is_fine(
    proxy: Proxy, client: Client, echo: Echo
) -> None:
    await proxy.reset()
    with pytest.raises(ConnectionResetError):
        await client.hears_the_end()
    await ended(echo)
    assert echo.heard[-1] == b"reset"
    async with connected(proxy) as another:
        another.say(b"again")
        await another.hears(b"again")


@pytest.mark.parametrize("at_once", [True, False])
async def test_after_so_many_bytes_the_connection_is_cut(
    proxy: Proxy, client: Client, echo: Echo, *, at_once: bool
) -> None:
    proxy.to_server.cut_after = 7
    for words in (b"0123456789",) if at_once else (b"0123", b"456789"):
        client.say(words)
        await asyncio.sleep(0.01)
    await ended(echo)
    assert b"".join(echo.heard) == b"hello0123456"
    async with connected(proxy) as another:
        another.say(b"0123456789")
        await another.hears(b"0123456789")


async def test_an_end_can_be_told_late(proxy: Proxy, client: Client, echo: Echo) -> None:
    proxy.to_server.close_delay_s = 0.2
    began = time.perf_counter()
    client.writer.write_eof()
    await ended(echo)
    assert time.perf_counter() - began > 0.2


async def test_while_frozen_connections_stay_and_nothing_comes_through(
    proxy: Proxy, client: Client, echo: Echo
) -> None:
    proxy.freeze()
    async with connected(proxy) as another:
        client.say(b"first")
        another.say(b"second")
        await client.hears_nothing()
        await another.hears_nothing()
        assert echo.heard == [b"hello"]
        proxy.thaw()
        await client.hears(b"first")
        await another.hears(b"second")


async def test_one_way_can_be_frozen_alone(proxy: Proxy, client: Client, echo: Echo) -> None:
    proxy.to_client.frozen = True
    client.say(b"question")
    await client.hears_nothing()
    assert echo.heard[1:] == [b"question"]
    proxy.to_client.frozen = False
    await client.hears(b"question")


async def test_a_port_that_is_down_refuses_and_is_the_same_afterwards(proxy: Proxy, client: Client, echo: Echo) -> None:
    await proxy.down()
    await client.hears_the_end()
    await ended(echo)
    with pytest.raises(ConnectionRefusedError):
        async with connected(proxy):
            pass
    await proxy.up()
    async with connected(proxy) as another:
        another.say(b"again")
        await another.hears(b"again")


async def test_connections_that_go_down_with_it_leave_no_word_in_the_log(
    proxy: Proxy, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await proxy.down()
    await client.hears_the_end()
    assert caplog.records == []


async def test_a_server_that_is_away_resets_who_connects() -> None:
    async with Proxy("http://127.0.0.1:1/") as proxy, connected(proxy) as client:
        with pytest.raises(ConnectionResetError):
            await client.hears_the_end()


async def test_a_connection_is_cut_when_a_pattern_has_passed_even_in_pieces(
    proxy: Proxy, client: Client, echo: Echo
) -> None:
    cut = proxy.to_client.cut_when(b"COMMIT")
    for words in (b"BEGIN COM", b"MIT;"):
        client.say(words)
        await asyncio.sleep(0.01)
    await client.hears_the_end(b"BEGIN COMMIT;")
    assert cut.is_set()
    await ended(echo)
    async with connected(proxy) as another:  # a trap springs once
        another.say(b"COMMIT")
        await another.hears(b"COMMIT")


async def test_an_answer_can_be_lost_to_a_request_that_was_heard(proxy: Proxy, client: Client, echo: Echo) -> None:
    cut = proxy.to_server.lose_answer_to(b"COMMIT")
    client.say(b"BEGIN")
    await client.hears(b"BEGIN")
    client.say(b"COMMIT")
    await client.hears_the_end()
    assert cut.is_set()
    assert echo.heard[-1] in (b"COMMIT", b"reset")
    assert b"COMMIT" in echo.heard


async def test_answers_to_others_pass_until_the_one_that_is_to_be_lost(
    proxy: Proxy, client: Client, echo: Echo
) -> None:
    cut = proxy.to_server.lose_answer_to(b"publish", answer=b"confirm")
    client.say(b"confirm, publish")
    await client.hears_the_end()
    assert cut.is_set()
    async with connected(proxy) as another:
        cut = proxy.to_server.lose_answer_to(b"publish", answer=b"confirm")
        another.say(b"publish")
        await another.hears(b"publish")
        assert not cut.is_set()
        another.say(b"confirm")
        await another.hears_the_end()
        assert cut.is_set()


async def test_faults_add_up(proxy: Proxy, client: Client, echo: Echo) -> None:
    proxy.to_server.latency_s, proxy.to_server.slice_bytes, proxy.to_server.cut_after = 0.1, 2, 5
    began = time.perf_counter()
    client.say(b"0123456789")
    await ended(echo)
    assert time.perf_counter() - began > 0.1
    assert b"".join(echo.heard) == b"hello01234"


def test_it_runs_on_a_loop_in_another_thread_and_its_faults_are_switched_from_here() -> None:
    async def echo_server() -> asyncio.Server:
        return await asyncio.start_server(Echo().serve, "127.0.0.1", 0)

    async def end(server: asyncio.Server) -> None:
        server.close()
        await server.wait_closed()

    async def talk(proxy: Proxy, words: bytes) -> None:
        async with connected(proxy) as client:
            client.say(words)
            await client.hears(words)

    with background() as loop:
        server = loop.run(echo_server())
        proxy = Proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        loop.run(proxy.up())
        loop.run(talk(proxy, b"hello"))
        proxy.freeze()
        with pytest.raises(TimeoutError):
            loop.run(asyncio.wait_for(talk(proxy, b"hello"), 0.1))
        proxy.thaw()
        loop.run(talk(proxy, b"again"))
        loop.run(proxy.down())
        loop.run(end(server))
