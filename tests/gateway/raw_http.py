"""HTTP as bytes over a socket, for what no client would send."""

import json
import socket
import time
from dataclasses import dataclass
from typing import Any, Self

_PATIENCE_S = 10.0


@dataclass(frozen=True)
class RawAnswer:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawConnection:
    """One connection, whose bytes are ours."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send the bytes, as far as the other side lets us."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def end(self) -> None:
        """Send no more, but go on listening."""
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self, *, has_body: bool = True) -> RawAnswer:
        """The next answer; that to HEAD has no body."""
        status_line, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        size = int(headers.get("content-length", "0")) if has_body else 0
        return RawAnswer(int(status_line.split(" ")[1]), headers, self._exactly(size))

    def interim(self) -> int:
        """The status of an answer that is followed by the real one."""
        return int(self._until(b"\r\n\r\n").split(b" ")[1])

    def everything(self) -> bytes:
        """All that comes until the other side closes."""
        pieces = [self._received]
        self._received = b""
        try:
            while piece := self._socket.recv(65536):
                pieces.append(piece)
        except ConnectionResetError:
            pass
        return b"".join(pieces)

    def is_closed(self, *, within_s: float = _PATIENCE_S) -> bool:
        """Whether the other side closes without another byte."""
        self._socket.settimeout(within_s)
        try:
            return self._received == b"" and self._socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True
        finally:
            self._socket.settimeout(_PATIENCE_S)

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._more()
        found, _, self._received = self._received.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            self._more()
        found, self._received = self._received[:size], self._received[size:]
        return found

    def _more(self) -> None:
        data = self._socket.recv(65536)
        assert data, f"the connection was closed after {self._received[:200]!r}"
        self._received += data


def trickle(connection: RawConnection, data: bytes, *, every_s: float) -> None:
    """Send it byte by byte."""
    for position in range(len(data)):
        connection.send(data[position : position + 1])
        time.sleep(every_s)
