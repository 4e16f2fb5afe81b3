"""The report of the gateway's benchmark: medians over rounds, and ratios within the run."""

import datetime as dt
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement. Busy is processor seconds a second: of load and upstream, and of the process measured."""

    per_s: float
    p50_ms: float
    p99_ms: float
    load_busy: float
    worker_busy: float


_PAGE = """\
# Performance

Measured by `./tollgate bench gateway`, which writes this page. The figures are of one run on one machine: only their
ratios travel.

## What was compared

- **upstream**: the sandbox upstream, called directly. It is what load generator and upstream can do together. Where it
  is well above another figure, they did not limit that; where the pass-through comes near it, the pass-through could do
  more than was asked of it, and Tollgate's share of it is overstated.
- **pass-through**: a bare ASGI application that hands a request on with aiohttp, under the same uvicorn options. It is
  what a gateway in Python could do at best.
- **Tollgate**: one web process of `./tollgate up` with everything on: key and policy, minute limits in Redis, a hold
  and a settlement in PostgreSQL with durable commits, and a usage record for each request, all from one account.

{pinned}
Rounds: {rounds}, the targets in random order within each. A measurement takes {seconds} s after a warm-up; the figures
are medians over the rounds. A stream has 50 chunks, each a write of its own. Latency is to the last byte.

{machine}

{plain}

{streamed}

## The books afterwards

`audit_ledger`, run on the instance at the end:

{audit}
"""
_PINNED = (
    "What is measured runs on one core, the upstream and the load generator on another; PostgreSQL, Redis and the\n"
    "Celery worker run where the kernel puts them."
)
_QUIET = 0.1
_NOT_PINNED = "There is one core only, which everything shares: the ratios say less than they should."


# By target, concurrency, and whether it was streamed.
Round = dict[tuple[str, int, bool], Cell]


def write(
    rounds: Sequence[Round], *, seconds: float, is_pinned: bool, others_busy: float, audit: Sequence[str]
) -> str:
    """The whole report as Markdown."""
    facts = {
        "pinned": _PINNED if is_pinned else _NOT_PINNED,
        "rounds": len(rounds),
        "seconds": f"{seconds:g}",
        "machine": _machine(others_busy),
        "plain": _table(rounds, is_streamed=False),
        "streamed": _table(rounds, is_streamed=True),
        "audit": "\n".join(f"    {line}" for line in audit),
    }
    return _PAGE.format(**facts)


def _machine(others_busy: float) -> str:
    cores = len(os.sched_getaffinity(0))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Machine: {_processor()}, {cores} cores, {memory_gib:.0f} GiB; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}. Date: {dt.datetime.now(dt.UTC):%Y-%m-%d}.{_warning(others_busy)}"
    )


def _warning(others_busy: float) -> str:
    if others_busy < _QUIET:
        return ""
    return (
        f"\n\n**The machine was not idle**: other work used {others_busy:.0%} of it, so the figures are too low "
        "and the ratios unsteady. Measure again on a quiet machine before you believe them."
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] != "unknown" else f"{platform.machine()} processor"


def _table(rounds: Sequence[Round], *, is_streamed: bool) -> str:
    title = "Streamed" if is_streamed else "Plain"
    busy = "Load and upstream busy | Process busy"
    unit = "Streams" if is_streamed else "Requests"
    lines = [
        f"## {title}",
        "",
        f"| At once | Target | {unit} a second | Of the pass-through | Of the upstream | p50 ms | p99 ms | {busy} |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    keys = [key for key in rounds[0] if key[2] == is_streamed]
    for concurrency in sorted({key[1] for key in keys}):
        targets = ("upstream", "pass-through", "Tollgate")
        lines += [_row(rounds, target, concurrency, is_streamed=is_streamed) for target in targets]
    return "\n".join(lines)


def _row(rounds: Sequence[Round], target: str, concurrency: int, *, is_streamed: bool) -> str:
    cells = [measured[target, concurrency, is_streamed] for measured in rounds]

    def ratio(other: str) -> str:
        others = [measured[other, concurrency, is_streamed] for measured in rounds]
        share = statistics.median(mine.per_s / its.per_s for mine, its in zip(cells, others, strict=True))
        return "" if target in (other, "upstream") else f"{share:.0%}"

    figures = [
        f"{statistics.median(cell.per_s for cell in cells):,.0f}",
        ratio("pass-through"),
        ratio("upstream"),
        f"{statistics.median(cell.p50_ms for cell in cells):.2f}",
        f"{statistics.median(cell.p99_ms for cell in cells):.2f}",
        f"{statistics.median(cell.load_busy for cell in cells):.0%}",
        f"{statistics.median(cell.worker_busy for cell in cells):.0%}" if target != "upstream" else "",
    ]
    return f"| {concurrency} | {target} | {' | '.join(figures)} |"
