"""An upstream that says exactly these bytes, in exactly these writes, and then closes, resets or falls silent."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\nconnection: close\r\n%s\r\n"
# Longer than the kernel needs to send a write of its own as a segment of its own.
_BETWEEN_WRITES_S = 0.005
_SILENCE_S = 60.0
_NO_LINGER = struct.pack("ii", 1, 0)


class RawUpstream:
    """One answer for whoever asks, on a port of its own; `connections` and `asked` count, `body` is the last one."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pieces: Sequence[bytes | Callable[[], object]] = ()
        self._end = "close"
        self._is_over = threading.Event()
        self.connections = self.asked = 0
        self.body = b""
        threading.Thread(target=self._accept, name="raw upstream", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def streams(self, *pieces: bytes | Callable[[], object], end: str = "close") -> None:
        """From now on answer with these writes of an event stream; what can be called is called in between."""
        self._pieces = (HEAD % (b"text/event-stream", b""), *pieces)
        self._end = end

    def answers(self, *pieces: bytes, length: int | None = None, end: str = "close") -> None:
        """From now on answer with this JSON; `length` is what the header says of it."""
        declared = b"" if length is None else b"content-length: %d\r\n" % length
        self._pieces = (HEAD % (b"application/json", declared), *pieces)
        self._end = end

    def says(self, *pieces: bytes | Callable[[], object], end: str = "close") -> None:
        """From now on answer with these bytes, the status line among them."""
        self._pieces = pieces
        self._end = end

    def close(self) -> None:
        self._is_over.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.body = _read_request(connection)
            self.asked += 1
            for piece in self._pieces:
                if callable(piece):
                    piece()
                else:
                    connection.sendall(piece)
                    time.sleep(_BETWEEN_WRITES_S)
            if self._end == "silence":
                connection.settimeout(_SILENCE_S)
                connection.recv(1)
            elif self._end == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def _read_request(connection: socket.socket) -> bytes:
    """The body of the whole request: a connection that is closed with unread bytes is reset."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return body


@contextlib.contextmanager
def running() -> Iterator[RawUpstream]:
    upstream = RawUpstream()
    try:
        yield upstream
    finally:
        upstream.close()


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """The address of a port that takes no connection and refuses none: its queue is full."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = listener.getsockname()
    waiting = []
    try:
        while True:
            client = socket.socket()
            client.settimeout(0.2)
            waiting.append(client)
            try:
                client.connect(address)
            except TimeoutError:
                break
        yield f"http://127.0.0.1:{address[1]}/v1"
    finally:
        for client in waiting:
            client.close()
        listener.close()
