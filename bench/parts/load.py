"""The load generator, a process of its own: `python -m bench.parts.load`, its orders as JSON on standard input.

It keeps `concurrency` connections busy, a request after the other on each, and writes what it saw as JSON. It parses
with httptools and builds its one request once, so that it costs much less than what it measures.
"""

import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop

WARM_UP_S = 0.3
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What to send where, how much at once and for how long. `key` goes into the Authorization header."""

    url: str
    key: str
    body: dict[str, Any]
    concurrency: int
    seconds: float


@dataclass(slots=True)
class Findings:
    """What was measured after the warm-up. Latencies are seconds to the last byte; `cpu_s` is the generator's own."""

    requests: int = 0
    elapsed_s: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    cpu_s: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)


class _Caller(asyncio.Protocol):
    """One connection: sends the request again as soon as its answer is complete."""

    def __init__(self, request: bytes, end_at: float, findings: Findings, latencies_s: list[float]) -> None:
        self._request = request
        self._end_at = end_at
        self._findings = findings
        self._latencies_s = latencies_s
        self._sent_at = 0.0
        self._is_done = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_done:
            self._note_error(f"connection lost: {exc}")
        if not self.closed.done():
            self.closed.set_result(None)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        now = time.perf_counter()
        status = self._parser.get_status_code()
        if status == 200:  # noqa: PLR2004 - HTTP's
            self._latencies_s.append(now - self._sent_at)
        else:
            self._note_error(f"status {status}")
        if now < self._end_at:
            self._send()
        else:
            self._is_done = True
            self._transport.close()

    def _send(self) -> None:
        # A parser serves one answer: the next may come in another shape.
        self._parser = httptools.HttpResponseParser(self)
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def _note_error(self, error: str) -> None:
        self._findings.errors[error] = self._findings.errors.get(error, 0) + 1


async def run(orders: Orders) -> Findings:
    """Warm up, measure, and say what was seen."""
    parts = urlsplit(orders.url)
    body = json.dumps(orders.body).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {orders.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    await _drive(parts.hostname or "", parts.port or 80, request, orders.concurrency, WARM_UP_S)
    return await _drive(parts.hostname or "", parts.port or 80, request, orders.concurrency, orders.seconds)


async def _drive(host: str, port: int, request: bytes, concurrency: int, seconds: float) -> Findings:
    findings = Findings()
    latencies_s: list[float] = []
    loop = asyncio.get_running_loop()
    cpu_s = _cpu_s()
    began = time.perf_counter()
    callers: list[_Caller] = []
    for _ in range(concurrency):
        _transport, caller = await loop.create_connection(
            lambda: _Caller(request, began + seconds, findings, latencies_s), host, port
        )
        callers.append(caller)
    _done, late = await asyncio.wait([caller.closed for caller in callers], timeout=seconds + _PATIENCE_S)
    findings.elapsed_s = time.perf_counter() - began
    if late:
        findings.errors["no answer"] = len(late)
    findings.cpu_s = _cpu_s() - cpu_s
    latencies_s.sort()
    findings.requests = len(latencies_s)
    if latencies_s:
        findings.p50_s = latencies_s[len(latencies_s) // 2]
        findings.p99_s = latencies_s[int(len(latencies_s) * 0.99)]
    return findings


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    found = uvloop.run(run(Orders(**json.load(sys.stdin))))
    json.dump(asdict(found), sys.stdout)
