"""`./tollgate bench memory`: what one gateway process holds in memory, over many requests and under open streams."""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict

from bench.parts import page, processes
from bench.parts.installation import Installation, installation
from bench.parts.load import Orders
from bench.parts.measuring import Surroundings, Target, measure
from bench.parts.requesting import body
from config.home import ROOT

_SAMPLES = 10
_CONCURRENCY = 64
_CHUNK_DELAY_MS = 1_000
# For this share of their time all streams are surely open; the rest is for opening them.
_HELD_SHARE = 0.25
_LOOK_S = 0.5
# What a process lets go of at the end of a request, it lets go of within this.
_SETTLE_S = 3.0
_MIB = 2**20

_SECTION = """\
## Memory

{provenance}

Resident memory of one web process (the gateway and the console in it), as the kernel counts it.

### Over {requests:,} requests

Plain, {concurrency} at once, after {warm_up:,} to warm up.

{over_requests}

The mean of the last third is {growth:+.2f} MiB ({share:+.1%}) from that of the first third: {per_request:+.0f} bytes
a request.

### With {streams:,} streams open

Each has {chunks} chunks, one a second; all are open at once, twice in a row, on the process that has served the
requests above.

{under_streams}

A stream held open takes {first:.0f} KiB the first time and {second:.0f} KiB the second.
"""


def main() -> None:
    """Measure and write the section."""
    options = _options()
    with installation() as own:
        _serve(own, requests=options.requests // _SAMPLES)
        over_requests = list(_over_requests(own, options.requests))
        under_streams = list(_under_streams(own, options.streams, options.chunks))
        own.audit()
    page.publish(options, "memory", _report(options, over_requests, under_streams))


def _options() -> argparse.Namespace:
    parser = page.parser("memory", "Memory of a gateway process over many requests and under open streams.")
    parser.add_argument("--requests", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--streams", type=int, default=1_000, help="default: %(default)s")
    parser.add_argument(
        "--chunks", type=int, default=40, help="of a stream, one a second (default: %(default)s)"
    )
    return page.read(parser, requests=1_000, streams=20, chunks=6)


def _rss(own: Installation) -> int:
    (pid,) = own.web_pids
    return processes.rss_bytes(pid)


def _serve(own: Installation, *, requests: int) -> None:
    measure(
        Target("Tollgate", own.url, own.keys, tuple(own.web_pids)),
        Surroundings(own.sandbox_pid, os.sched_getaffinity(0)),
        body=body(is_streamed=False),
        concurrency=_CONCURRENCY,
        requests=requests,
        warm_up_s=0.0,
    )


def _over_requests(own: Installation, requests: int) -> Iterator[int]:
    """Bytes before the first request and after every tenth of them."""
    yield _rss(own)
    for done in range(_SAMPLES):
        _serve(own, requests=requests // _SAMPLES)
        print(f"{(done + 1) * (requests // _SAMPLES):,} requests done", flush=True)
        yield _rss(own)


def _under_streams(own: Installation, streams: int, chunks: int) -> Iterator[tuple[str, int]]:
    """What is going on, and bytes: before, and for two times under streams and after."""
    yield "before", _rss(own)
    for number in ("first", "second"):
        with _held(own, streams, chunks) as holder:
            yield f"{streams:,} open, the {number} time", max(_rss_while(own, holder, chunks))
        time.sleep(_SETTLE_S)
        yield "after", _rss(own)


@contextlib.contextmanager
def _held(own: Installation, streams: int, chunks: int) -> Iterator["subprocess.Popen[str]"]:
    """Streams that are all open; the block may take as long as they last, and they end before it does."""
    orders = Orders(
        url=f"{own.url}/v1/chat/completions",
        keys=own.keys,
        body=body(is_streamed=True, chunks=chunks, chunk_delay_ms=_CHUNK_DELAY_MS),
        concurrency=streams,
    )
    command = [sys.executable, "-m", "bench.parts.holding"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(f"{json.dumps(asdict(orders))}\n")
        holder.stdin.close()
        assert holder.stdout.readline() == "open\n", "the streams could not be opened"
        yield holder
        assert holder.stdout.readline() == "over\n", "not every stream came to its end"


def _rss_while(own: Installation, holder: "subprocess.Popen[str]", chunks: int) -> Iterator[int]:
    """Bytes, twice a second, while all streams are open."""
    for _ in range(int(chunks * _HELD_SHARE / _LOOK_S)):
        yield _rss(own)
        time.sleep(_LOOK_S)
        assert holder.poll() is None, "the streams ended too early"


def _report(
    options: argparse.Namespace, over_requests: list[int], under_streams: list[tuple[str, int]]
) -> str:
    step, third = options.requests // _SAMPLES, _SAMPLES // 3
    samples = over_requests[1:]
    first, last = statistics.mean(samples[:third]), statistics.mean(samples[-third:])
    before, held, _after, held_again, _after_again = (bytes_ for _moment, bytes_ in under_streams)
    return _SECTION.format(
        provenance=page.provenance("memory"),
        requests=options.requests,
        concurrency=_CONCURRENCY,
        warm_up=step,
        over_requests=page.table(
            ("Requests", "MiB"),
            [(f"{step * index:,}", f"{rss / _MIB:.1f}") for index, rss in enumerate(over_requests)],
            left=0,
        ),
        growth=(last - first) / _MIB,
        share=last / first - 1,
        per_request=(last - first) / (step * (_SAMPLES - third)),
        streams=options.streams,
        chunks=options.chunks,
        under_streams=page.table(
            ("Streams", "MiB"), [(moment, f"{rss / _MIB:.1f}") for moment, rss in under_streams]
        ),
        first=(held - before) / options.streams / 1024,
        second=(held_again - before) / options.streams / 1024,
    )


if __name__ == "__main__":
    main()
