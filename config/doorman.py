"""Who answers at the door while an instance stops: 503, and when to come again. Standard library only.

The web processes finish what they have begun and take nobody new. Without somebody at the socket that they share with
the supervisor, a caller would wait in its queue, and be cut off when the last of them ends.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid

from gateway import shapes

# The instance may be back by then.
_RETRY_AFTER_S = 5
_MESSAGE = (
    "Tollgate is stopping or starting again. Nothing was sent upstream and nothing was charged; try again."
)
_LOOK_S = 0.2
_PATIENCE_S = 2.0
_MAX_HEAD_BYTES = 64 * 1024
# More callers than this at once wait in the queue.
_AT_ONCE = 64


class Doorman:
    """Answers every caller of a listening socket, in threads of its own that keep no process alive."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._is_over = threading.Event()
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._thread = threading.Thread(target=self._stand, name="doorman", daemon=True)

    def start(self) -> None:
        """Take whoever comes from now on."""
        # The web processes have made it one that never waits: only with a time limit is it waited for here.
        self._listener.settimeout(_LOOK_S)
        self._thread.start()

    def stop(self) -> None:
        """Take nobody any more, and close the socket. Answers that have begun are given time to arrive."""
        self._is_over.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()
        deadline = time.monotonic() + _PATIENCE_S
        for _ in range(_AT_ONCE):
            if not self._room.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return

    def _stand(self) -> None:
        while not self._is_over.is_set():
            try:
                connection, _address = self._listener.accept()
            except OSError:  # nobody came, or a web process that has not heard yet took the caller
                continue
            self._room.acquire()
            threading.Thread(target=self._turn_away, args=(connection,), daemon=True).start()

    def _turn_away(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_PATIENCE_S)
                connection.sendall(_answer(_head_of(connection)))
                connection.shutdown(socket.SHUT_WR)
                # Closed on somebody who is still sending, the answer would be lost.
                deadline = time.monotonic() + _PATIENCE_S
                while connection.recv(65536) and time.monotonic() < deadline:
                    pass
        finally:
            self._room.release()


def _head_of(connection: socket.socket) -> bytes:
    """The request's line and headers, as far as they come in time."""
    head = b""
    deadline = time.monotonic() + _PATIENCE_S
    with contextlib.suppress(TimeoutError):
        while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD_BYTES and time.monotonic() < deadline:
            piece = connection.recv(65536)
            if not piece:
                break
            head += piece
    return head


def _answer(head: bytes) -> bytes:
    """In the shape that the caller reads: an API's error object, or words for a browser."""
    method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    target = rest.rpartition(b" ")[0]
    request_id = _uuid7()
    kind, body = "application/json", b""
    if shapes.is_anthropics(target):
        body = json.dumps(
            shapes.anthropics(
                status=503,
                message=_MESSAGE,
                param=None,
                code="temporarily_unavailable",
                request_id=request_id,
            )
        ).encode()
    elif target.startswith(b"/v1/"):
        error = shapes.openais(message=_MESSAGE, type="api_error", param=None, code="temporarily_unavailable")
        body = json.dumps(error).encode()
    else:
        kind, body = (
            "text/plain; charset=utf-8",
            b"Tollgate is stopping or starting again. Try again in a moment.\n",
        )
    lines = [
        "HTTP/1.1 503 Service Unavailable",
        f"x-request-id: {request_id}",
        f"retry-after: {_RETRY_AFTER_S}",
        f"retry-after-ms: {_RETRY_AFTER_S * 1000}",
        "cache-control: no-store",
        "connection: close",
        f"content-type: {kind}",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == b"HEAD" else body)


def _uuid7() -> str:
    """As every answer has one. RFC 9562: milliseconds since 1970, the version, and chance."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    number = number & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=number & ~(0x3 << 62) | 0x2 << 62))
