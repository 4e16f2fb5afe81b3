"""Many streams at once, read to whatever end they come to."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx

from tests.gateway.conftest import wait_for

# A connection for each stream: one that was kept could lead to another process than the next stream is meant for.
_NONE_KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=0)


@dataclass
class OpenStream:
    """One stream: what it has brought so far, and how it ended."""

    status: int = 0
    text: str = ""
    is_cut: bool = False

    @property
    def is_complete(self) -> bool:
        return self.text.endswith("data: [DONE]\n\n")

    @property
    def has_error_event(self) -> bool:
        return '"error"' in self.text.rstrip().rsplit("data: ", 1)[-1]

    def read(self, client: httpx.Client, secret: str, body: Mapping[str, Any]) -> "OpenStream":
        headers = {"authorization": f"Bearer {secret}"}
        try:
            with client.stream("POST", "chat/completions", json=body, headers=headers) as answer:
                self.status = answer.status_code
                for piece in answer.iter_text():
                    self.text += piece
        except httpx.TransportError:
            self.is_cut = True
        return self


class OpenStreams:
    """Streams that run in the background; `ended()` waits for them."""

    def __init__(self, pool: ThreadPoolExecutor, client: httpx.Client) -> None:
        self._pool = pool
        self._client = client
        self._reading: list[Future[OpenStream]] = []
        self.streams: list[OpenStream] = []

    def open(self, count: int, *, secret: str, body: Mapping[str, Any]) -> None:
        """Open so many more, and return when each has brought its first piece of text."""
        opened = [OpenStream() for _ in range(count)]
        self._reading += [self._pool.submit(stream.read, self._client, secret, body) for stream in opened]
        self.streams += opened
        wait_for(lambda: all('"content"' in stream.text for stream in opened), patience_s=20)

    def ended(self) -> list[OpenStream]:
        """All of them, as they have ended."""
        wait(self._reading)
        return [reading.result() for reading in self._reading]


@contextmanager
def opened(url: str) -> Iterator[OpenStreams]:
    with (
        httpx.Client(base_url=url, limits=_NONE_KEPT, timeout=60, verify=False) as client,
        ThreadPoolExecutor(60) as pool,
    ):
        yield OpenStreams(pool, client)
