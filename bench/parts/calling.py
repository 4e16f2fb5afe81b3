"""One connection of the load generator, and what it has seen.

It parses with httptools and is handed requests as bytes, so that it costs much less than what it measures.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools

_OK = 200


@dataclass(slots=True)
class Seen:
    """What became of the requests. Latencies are in seconds, to the last byte."""

    latencies_s: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def note_error(self, error: str) -> None:
        """Count one more of its kind."""
        self.errors[error] = self.errors.get(error, 0) + 1


class Caller(asyncio.Protocol):
    """A connection that carries one request at a time; whoever made it says by `go_on` what follows an answer."""

    def __init__(self, seen: Seen, go_on: "Callable[[Caller], None]") -> None:
        self._seen = seen
        self._go_on = go_on
        self._counted_from = 0.0
        self._is_leaving = False
        loop = asyncio.get_running_loop()
        # The first byte of an answer has come; the connection has ended.
        self.begun: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()

    def send(self, request: bytes, *, counted_from: float) -> None:
        """Send a request whose latency counts from this moment of `time.perf_counter()`."""
        # A parser serves one answer: the next may come in another shape.
        self._parser = httptools.HttpResponseParser(self)
        self._counted_from = counted_from
        self._transport.write(request)

    def leave(self) -> None:
        """Close the connection."""
        self._is_leaving = True
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self.begun.done():
            self.begun.set_result(None)
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_leaving:
            self._seen.note_error(f"connection lost: {exc}")
        for future in (self.begun, self.closed):
            if not future.done():
                future.set_result(None)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        now = time.perf_counter()
        status = self._parser.get_status_code()
        if status == _OK:
            self._seen.latencies_s.append(now - self._counted_from)
        else:
            self._seen.note_error(f"status {status}")
        self._go_on(self)


async def connect(
    host: str, port: int, count: int, seen: Seen, go_on: Callable[[Caller], None]
) -> list[Caller]:
    """Open so many connections."""
    loop = asyncio.get_running_loop()
    callers: list[Caller] = []
    for _ in range(count):
        _transport, caller = await loop.create_connection(lambda: Caller(seen, go_on), host, port)
        callers.append(caller)
    return callers
