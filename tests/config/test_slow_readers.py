"""Clients that read slowly, or not at all: what waits for them is bounded, and who takes nothing is cut."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from config.http_protocol import StrictHttpProtocol
from config.listening import listen
from gateway.asgi import Exchange, Message, Receive, Scope, Send
from tests.gateway.conftest import wait_for

LIMIT_S = 1.5
KIB = 1024
WHOLE_BYTES = 1024 * KIB
# Written in one go, and still more than the kernel takes for who does not read.
SHORT_BYTES = 60 * KIB
# What a client's own kernel takes for it. It asks for more when all of that has been read, so it must be little.
_RECEIVED_BYTES = 2304


class HastyHttpProtocol(StrictHttpProtocol):
    """The same with another time."""

    reader_timeout_s = LIMIT_S


class Site:
    """A server, and what its last answer has come to."""

    def __init__(self) -> None:
        self.port = 0
        self.written_bytes = 0
        self.ended = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A mebibyte at /whole, less at /short; else an answer without an end, in small writes or in large ones."""
        self.written_bytes, self.ended = 0, ""

        async def count(message: Message) -> None:
            await send(message)
            self.written_bytes += len(message.get("body", b""))

        exchange = Exchange(scope, receive, count)
        await exchange.read_body()
        if scope["path"] in ("/whole", "/short"):
            await exchange.answer(200, b"x" * (WHOLE_BYTES if scope["path"] == "/whole" else SHORT_BYTES))
        else:
            await self._go_on(exchange, b"x" * (WHOLE_BYTES if scope["path"] == "/large" else 500))
        self.ended = scope["path"]

    async def _go_on(self, exchange: Exchange, piece: bytes) -> None:
        leaving = asyncio.create_task(exchange.wait_for_disconnect())
        await exchange.start(200, [])
        while not leaving.done() and self.written_bytes < 64 * WHOLE_BYTES:
            await exchange.write(piece)
            await asyncio.sleep(0)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    config = uvicorn.Config(site, http=HastyHttpProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        site.port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield site
        server.should_exit = True
        thread.join()


class Reader:
    """A client that reads when it likes."""

    def __init__(self, site: Site, *paths: str, rest: bytes = b"") -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)
        self._socket.settimeout(10)
        self._socket.connect(("127.0.0.1", site.port))
        asked = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths]
        self._socket.sendall(b"".join(asked) + rest)

    def read(self, most: int = 64 * KIB) -> bytes:
        return self._socket.recv(most)

    def read_slowly(self, seconds: float) -> int:
        """Four KiB a second; how many bytes came."""
        read, ends_at = 0, time.monotonic() + seconds
        while time.monotonic() < ends_at:
            read += len(self.read(KIB))
            time.sleep(0.25)
        return read

    def read_all(self) -> bytes:
        """All that comes until the other side closes; b"cut" at its end if it does not close in good order."""
        pieces = []
        try:
            while piece := self.read():
                pieces.append(piece)
        except ConnectionResetError:
            pieces.append(b"cut")
        return b"".join(pieces)

    def leave(self) -> None:
        self._socket.close()


def test_a_client_has_thirty_seconds_to_take_something() -> None:
    assert StrictHttpProtocol.reader_timeout_s == 30


@pytest.mark.parametrize("path", ["/small", "/large", "/whole"])
def test_no_more_than_256_kib_wait_for_a_client_that_does_not_read_and_then_it_is_cut(
    site: Site, path: str
) -> None:
    reader = Reader(site, path)
    began = time.monotonic()
    wait_for(lambda: site.written_bytes > 0)

    time.sleep(LIMIT_S / 2)
    assert site.written_bytes <= 256 * KIB
    assert not site.ended
    wait_for(lambda: site.ended == path)

    assert LIMIT_S < time.monotonic() - began < 2 * LIMIT_S
    assert reader.read_all().endswith(b"cut")


def test_a_client_that_takes_a_little_at_a_time_gets_everything(site: Site) -> None:
    reader = Reader(site, "/whole")

    read = reader.read_slowly(4 * LIMIT_S)
    assert read <= 32 * KIB
    while read < WHOLE_BYTES:
        read += len(reader.read())

    wait_for(lambda: site.ended == "/whole")


def test_a_client_that_stops_after_a_while_is_cut_as_well(site: Site) -> None:
    reader = Reader(site, "/small")
    reader.read_slowly(2 * LIMIT_S)
    assert not site.ended

    stopped = time.monotonic()
    wait_for(lambda: site.ended == "/small")

    # Its own kernel may have asked for the last of it a while before.
    assert LIMIT_S / 4 < time.monotonic() - stopped < 2 * LIMIT_S
    reader.leave()


def test_a_client_that_leaves_while_its_next_request_waits_is_gone_for_the_first(site: Site) -> None:
    reader = Reader(site, "/small", "/whole")
    reader.read()

    reader.leave()

    wait_for(lambda: site.ended == "/small")
    assert site.written_bytes < WHOLE_BYTES


def test_a_slow_reader_has_its_answer_before_the_refusal_of_what_follows(site: Site) -> None:
    reader = Reader(site, "/short", rest=b"NONSENSE\r\n\r\n")
    time.sleep(0.8 * LIMIT_S)  # longer than a sender lingers after a refusal
    assert site.ended == "/short"

    heard = reader.read_all()

    assert b"x" * SHORT_BYTES in heard
    assert b"malformed_request" in heard
    assert not heard.endswith(b"cut")
