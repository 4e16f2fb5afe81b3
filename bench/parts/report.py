"""The section of `bench gateway`: medians over rounds, and ratios within them."""

from collections.abc import Callable, Sequence

from bench.parts.figures import figures
from bench.parts.measuring import Cell
from bench.parts.page import table
from bench.parts.rounds import Round, median, ratio
from bench.parts.targets import LITELLM, NGINX, PASSTHROUGH, TOLLGATE, UPSTREAM

# Where generator and upstream are as busy as this, they may be what limited the figure.
_LIMIT = 0.9

_SECTION = """\
## One process compared

{provenance}

{figures}

Each is taken within a round, between measurements that are neighbors in time; shown are the median over {rounds}
rounds, and the lowest and highest. Within a round the targets come in random order. A measurement takes {seconds} s
after a warm-up.
{notes}
### What was compared

{targets}

{pinned} A stream has 50 chunks, each a write of its own. Latency is to the last byte.

### Plain

{plain}

### Streamed

{streamed}

### Whether load generator and upstream were the limit

“Load and upstream busy” is their processor time together, and they share one core. “Their core busy” counts everybody
on that core. {limits}

### At a steady half of the maximum

16 connections, plain requests, evenly paced at half of what the same target reached at concurrency 16 just before. The
load does not wait for answers: a request that finds no free connection waits for one. Latency counts **from the moment
a request was due**, so a stall is charged for everyone it kept waiting; the lateness of the generator itself is
included, and its median is in the last column.

{steady}

### The books afterwards

`audit_ledger`, run on the instance at the end:

{audit}
"""
_TARGETS = {
    UPSTREAM: """\
- **upstream**: the sandbox upstream, called directly. It is what load generator and upstream can do together.""",
    NGINX: """\
- **nginx**: a proxy to the upstream with one worker, connections kept open, nothing buffered or logged.""",
    PASSTHROUGH: """\
- **pass-through**: a bare ASGI application that hands a request on with aiohttp, under uvicorn with uvloop and
  httptools. It is what a gateway in Python could do at best.""",
    TOLLGATE: """\
- **Tollgate**: one web process of `./tollgate up` with everything on: key and policy, minute limits in Redis, a hold
  and a settlement in PostgreSQL with durable commits, and a usage record for each request, all from one account.""",
    LITELLM: """\
- **LiteLLM**: LiteLLM's proxy with one worker, settings as its makers advise for production.""",
}
_PINNED = (
    "What is measured runs on one core, the upstream and the load generator on another; PostgreSQL, Redis and the\n"
    "Celery worker run where the kernel puts them."
)
_NOT_PINNED = "There is one core only, which everything shares: the ratios say less than they should."


def write(
    rounds: Sequence[Round],
    *,
    provenance: str,
    seconds: float,
    is_pinned: bool,
    notes: Sequence[str],
    audit: Sequence[str],
) -> str:
    """The whole section as Markdown."""
    return _SECTION.format(
        provenance=provenance,
        figures=figures(rounds),
        rounds=len(rounds),
        seconds=f"{seconds:g}",
        notes="".join(f"\n- {note}" for note in notes) + ("\n" if notes else ""),
        pinned=_PINNED if is_pinned else _NOT_PINNED,
        targets="\n".join(_TARGETS[target] for target in _present(rounds)),
        plain=_compared(rounds, is_streamed=False),
        streamed=_compared(rounds, is_streamed=True),
        limits=_limits(rounds),
        steady=_steady(rounds),
        audit="\n".join(f"    {line}" for line in audit),
    )


def _present(rounds: Sequence[Round]) -> list[str]:
    """The targets that ran, in the order of the tables."""
    return [target for target in _TARGETS if (target, 1, False) in rounds[0].cells]


def _compared(rounds: Sequence[Round], *, is_streamed: bool) -> str:
    unit = "Streams" if is_streamed else "Requests"
    busy = ("Load and upstream busy", "Their core busy", "Process busy")
    others = ("Of the pass-through", "Of the upstream", "To LiteLLM")
    concurrencies = sorted({concurrency for _target, concurrency, _is_streamed in rounds[0].cells})
    rows = [
        _row(rounds, target, concurrency, is_streamed=is_streamed)
        for concurrency in concurrencies
        for target in _present(rounds)
    ]
    return table(("At once", "Target", f"{unit} a second", *others, "p50 ms", "p99 ms", *busy), rows, left=2)


def _row(rounds: Sequence[Round], target: str, concurrency: int, *, is_streamed: bool) -> list[str]:
    def figure(read: Callable[[Cell], float], of: str = target) -> Callable[[Round], float]:
        return lambda measured: read(measured.cells[of, concurrency, is_streamed])

    def against(other: str, written: str) -> str:
        if other not in _present(rounds) or target in (other, UPSTREAM):
            return ""
        return written.format(ratio(rounds, figure(_per_s), figure(_per_s, other)).median)

    return [
        str(concurrency),
        target,
        f"{median(rounds, figure(_per_s)):,.0f}",
        against(PASSTHROUGH, "{:.0%}"),
        against(UPSTREAM, "{:.0%}"),
        against(LITELLM, "{:.1f}x"),
        f"{median(rounds, figure(lambda cell: cell.p50_ms)):,.2f}",
        f"{median(rounds, figure(lambda cell: cell.p99_ms)):,.2f}",
        f"{median(rounds, figure(lambda cell: cell.load_busy)):.0%}",
        f"{median(rounds, figure(lambda cell: cell.cores_busy)):.0%}",
        f"{median(rounds, figure(lambda cell: cell.worker_busy)):.0%}" if target != UPSTREAM else "",
    ]


def _per_s(cell: Cell) -> float:
    return cell.per_s


def _limits(rounds: Sequence[Round]) -> str:
    """Says of which figures the load, not the target, may have been the limit."""

    def load_busy(key: tuple[str, int, bool]) -> float:
        return median(rounds, lambda measured: measured.cells[key].load_busy)

    found = [
        f"{target} at {concurrency}{' streamed' if is_streamed else ''}"
        for target, concurrency, is_streamed in sorted(rounds[0].cells)
        if target != UPSTREAM and load_busy((target, concurrency, is_streamed)) >= _LIMIT
    ]
    if not found:
        return f"But for the upstream itself, load generator and upstream were never {_LIMIT:.0%} busy."
    return (
        f"But for the upstream itself, they were {_LIMIT:.0%} busy or more here, so that the target could have done "
        f"more: {', '.join(found)}."
    )


def _steady(rounds: Sequence[Round]) -> str:
    def row(target: str) -> list[str]:
        def figure(read: Callable[[Cell], float]) -> float:
            return median(rounds, lambda measured: read(measured.steady[target]))

        tail = ratio(
            rounds,
            lambda measured: measured.steady[target].p99_ms,
            lambda measured: measured.steady[target].p50_ms,
        )
        return [
            target,
            f"{figure(_per_s):,.0f}",
            f"{figure(lambda cell: cell.p50_ms):.2f}",
            f"{figure(lambda cell: cell.p99_ms):.2f}",
            f"{tail.median:.1f}x",
            f"{figure(lambda cell: cell.late_ms):.2f}",
        ]

    heads = ("Target", "Requests a second", "p50 ms", "p99 ms", "p99 to p50", "Sent late ms")
    return table(heads, [row(target) for target in _present(rounds) if target in rounds[0].steady])
