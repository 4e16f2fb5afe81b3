"""The load generator, a process of its own: `python -m bench.parts.load`, its orders as JSON on standard input.

It keeps its connections busy, a request after the other on each, or sends at a steady rate, and writes what it saw as
JSON.
"""

import asyncio
import itertools
import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvloop

from bench.parts import processes
from bench.parts.calling import Caller, Seen, connect
from bench.parts.pacing import pace

_WARM_UP_S = 0.3
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What to send where: for `seconds`, or until `requests` were answered where that is not 0.

    Each request carries the next of `keys` in its Authorization header. A `rate_per_s` above 0 is kept up whatever
    the answers do; else every connection sends again as soon as its answer is complete.
    """

    url: str
    keys: list[str] = field(repr=False)
    body: dict[str, Any]
    concurrency: int
    seconds: float = 0.0
    requests: int = 0
    rate_per_s: float = 0.0
    warm_up_s: float = _WARM_UP_S
    # Whose processor times are read around the measurement.
    pids: list[int] = field(default_factory=list)
    cores: list[int] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 80


@dataclass(slots=True)
class Findings:
    """What was measured after the warm-up. Latencies are seconds to the last byte; `cpu_s` is the generator's own.

    At a steady rate a latency counts from the moment a request was due, and `late_p50_s` is how late they were sent.
    `pids_cpu_s` is what each watched process used, `cores_busy` the share of the watched cores in use by anybody.
    """

    requests: int = 0
    elapsed_s: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    late_p50_s: float = 0.0
    cpu_s: float = 0.0
    pids_cpu_s: list[float] = field(default_factory=list)
    cores_busy: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)


async def run(orders: Orders) -> Findings:
    """Warm up, measure, and say what was seen."""
    host, port = orders.address
    requests = requests_of(orders)
    if orders.warm_up_s:
        await _keep_busy(host, port, requests, orders.concurrency, Seen(), seconds=orders.warm_up_s)
    seen, late_s = Seen(), [0.0]
    pids_before_s = [processes.cpu_s(pid) for pid in orders.pids]
    cores_before = processes.core_times(set(orders.cores))
    cpu_s, began = _cpu_s(), time.perf_counter()
    if orders.rate_per_s:
        late_s = await pace(
            host,
            port,
            requests=requests,
            connections=orders.concurrency,
            rate_per_s=orders.rate_per_s,
            seconds=orders.seconds,
            seen=seen,
        )
    else:
        limit = {"seconds": orders.seconds} if not orders.requests else {"count": orders.requests}
        await _keep_busy(host, port, requests, orders.concurrency, seen, **limit)
    findings = _findings(seen, late_s, elapsed_s=time.perf_counter() - began, cpu_s=_cpu_s() - cpu_s)
    findings.pids_cpu_s = [
        processes.cpu_s(pid) - before_s for pid, before_s in zip(orders.pids, pids_before_s, strict=True)
    ]
    findings.cores_busy = processes.share(cores_before, processes.core_times(set(orders.cores)))
    return findings


def requests_of(orders: Orders) -> Iterator[bytes]:
    """The same request for one key after the other, in an order that is not theirs, for ever."""
    parts = urlsplit(orders.url)
    body = json.dumps(orders.body).encode()
    made = [
        (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        for key in orders.keys
    ]
    random.shuffle(made)
    return itertools.cycle(made)


async def _keep_busy(
    host: str,
    port: int,
    requests: Iterator[bytes],
    concurrency: int,
    seen: Seen,
    *,
    seconds: float = float("inf"),
    count: float = float("inf"),
) -> None:
    """Until the time is over or so many requests were sent; what is on its way then is waited for."""
    end_at = time.perf_counter() + seconds
    left = itertools.count(1)

    def go_on(caller: Caller) -> None:
        now = time.perf_counter()
        if now < end_at and next(left) <= count:
            caller.send(next(requests), counted_from=now)
        else:
            caller.leave()

    callers = await connect(host, port, concurrency, seen, go_on)
    for caller in callers:
        go_on(caller)
    patience_s = None if seconds == float("inf") else seconds + _PATIENCE_S
    _done, late = await asyncio.wait([caller.closed for caller in callers], timeout=patience_s)
    for _ in late:
        seen.note_error("no answer")


def _findings(seen: Seen, late_s: list[float], *, elapsed_s: float, cpu_s: float) -> Findings:
    latencies_s, late_s = sorted(seen.latencies_s), sorted(late_s)
    findings = Findings(requests=len(latencies_s), elapsed_s=elapsed_s, cpu_s=cpu_s, errors=seen.errors)
    if latencies_s:
        findings.p50_s = latencies_s[len(latencies_s) // 2]
        findings.p99_s = latencies_s[int(len(latencies_s) * 0.99)]
        findings.late_p50_s = late_s[len(late_s) // 2]
    return findings


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    found = uvloop.run(run(Orders(**json.load(sys.stdin))))
    json.dump(asdict(found), sys.stdout)
