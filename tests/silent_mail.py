"""A mail server that accepts every connection and never says a word."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator


class SilentMailServer:
    """Listens on a port of its own; `callers` are those who wait for its greeting."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.callers: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _address = self._listener.accept()
                self.callers.append(caller)

    def wait_for_callers(self, number: int, *, patience_s: float) -> None:
        """Return when so many have come."""
        deadline = time.monotonic() + patience_s
        while len(self.callers) < number:
            assert time.monotonic() < deadline, f"{len(self.callers)} of {number} have come"
            time.sleep(0.05)

    def close(self) -> None:
        # `accept` does not notice a `close`.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for caller in self.callers:
            caller.close()


@contextlib.contextmanager
def silent_mail_server() -> Iterator[SilentMailServer]:
    """A server that is gone afterwards."""
    server = SilentMailServer()
    try:
        yield server
    finally:
        server.close()
