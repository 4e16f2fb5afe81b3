"""Load at a steady rate, whatever the answers do: an open loop.

A request has a moment at which it is due. It goes out then on a connection that is free; where none is, it waits for
one. Its latency counts from the moment it was due, so a server that stalls is charged for those it kept waiting.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator

from bench.parts.calling import Caller, Seen, connect

_PATIENCE_S = 30.0


class _Line:
    """The free connections, and the requests that are due and wait for one."""

    def __init__(self, requests: Iterator[bytes], count: int) -> None:
        self._requests = requests
        self._unanswered = count
        self._free: deque[Caller] = deque()
        self._due: deque[float] = deque()
        # Seconds from the moment a request was due to the moment it was sent.
        self.late_s: list[float] = []
        self.is_over = asyncio.Event()

    def open(self, callers: list[Caller]) -> None:
        """These connections may be used."""
        self._free.extend(callers)

    def fall_due(self, moment: float) -> None:
        """A request is due since `moment` of `time.perf_counter()`."""
        self._due.append(moment)
        if self._free:
            self._send(self._free.popleft())

    def go_on(self, caller: Caller) -> None:
        """An answer has come on this connection."""
        self._unanswered -= 1
        if not self._unanswered:
            self.is_over.set()
        if self._due:
            self._send(caller)
        else:
            self._free.append(caller)

    def _send(self, caller: Caller) -> None:
        moment = self._due.popleft()
        self.late_s.append(time.perf_counter() - moment)
        caller.send(next(self._requests), counted_from=moment)


async def pace(
    host: str,
    port: int,
    *,
    requests: Iterator[bytes],
    connections: int,
    rate_per_s: float,
    seconds: float,
    seen: Seen,
) -> list[float]:
    """Send `rate_per_s` requests a second, evenly; return by how many seconds each was sent late."""
    count = max(1, int(rate_per_s * seconds))
    line = _Line(requests, count)
    callers = await connect(host, port, connections, seen, line.go_on)
    line.open(callers)
    strike = (asyncio.get_running_loop(), line, count, 1 / rate_per_s)
    threading.Thread(target=_strike, args=strike, daemon=True).start()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(line.is_over.wait(), seconds + _PATIENCE_S)
    for caller in callers:
        caller.leave()
    if missing := count - len(seen.latencies_s) - sum(seen.errors.values()):
        seen.errors["no answer"] = missing
    return line.late_s


def _strike(loop: asyncio.AbstractEventLoop, line: _Line, count: int, interval_s: float) -> None:
    """A thread, because a timer of the event loop is only as fine as a millisecond, and a sleep is finer."""
    began = time.perf_counter()
    for number in range(count):
        moment = began + number * interval_s
        rest_s = moment - time.perf_counter()
        if rest_s > 0:
            time.sleep(rest_s)
        loop.call_soon_threadsafe(line.fall_due, moment)
