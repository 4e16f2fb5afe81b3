"""`./tollgate bench gateway`: one process of Tollgate beside the upstream, nginx, a bare pass-through and a peer.

Tollgate runs as `./tollgate up` starts it, in a folder of its own: one web process, real PostgreSQL with durable
commits, real Redis, and every stage of a request on. The account pays from credits and its limits are too high to
refuse. Needs Linux, for pinning processes to cores.
"""

import argparse
import os
import random

from bench.parts import page, processes, report
from bench.parts.measuring import Cell, measure
from bench.parts.requesting import body
from bench.parts.rounds import Round
from bench.parts.targets import PASSTHROUGH, TOLLGATE, Comparison, compared
from config.home import Home

CONCURRENCIES = (1, 16, 64)
# Of these the latency is also measured at half of their maximum: the pass-through shows what is not Tollgate's doing.
STEADY_TARGETS = (PASSTHROUGH, TOLLGATE)
STEADY_CONCURRENCY = 16
_WARM_UP_S = 3.0


def main() -> None:
    """Measure and write the section."""
    options = _options()
    rounds: list[Round] = []
    # Between rounds nothing of ours has work to do: what is busy then is somebody else.
    others_busy: list[float] = []
    with compared(with_litellm=options.peer == "litellm", home=Home.of(os.environ)) as comparison:
        _warm_up(comparison, seconds=0.5 if options.quick else _WARM_UP_S)
        for number in range(options.rounds):
            others_busy.append(processes.busy_share(1.0))
            rounds.append(_round(comparison, seconds=options.seconds))
            print(f"round {number + 1} of {options.rounds} done", flush=True)
        audit = comparison.installation.audit()
    text = report.write(
        rounds,
        provenance=page.provenance("gateway", others_busy),
        seconds=options.seconds,
        is_pinned=len(os.sched_getaffinity(0)) > 1,
        notes=comparison.notes,
        audit=audit,
    )
    page.publish(options, "gateway", text)


def _options() -> argparse.Namespace:
    parser = page.parser("gateway", "Compare one gateway process with others.")
    page.add_rounds(parser, rounds=7, seconds=3.0)
    parser.add_argument(
        "--peer",
        choices=["litellm"],
        help="another gateway to compare with; installed into TOLLGATE_HOME/bench",
    )
    return page.read(parser, rounds=1, seconds=0.5)


def _warm_up(comparison: Comparison, *, seconds: float) -> None:
    """The first requests of a process are slower than any other: imports, connections, caches."""
    for target in comparison.targets.values():
        for is_streamed in (False, True):
            _measure(comparison, target.name, concurrency=16, is_streamed=is_streamed, seconds=seconds)


def _round(comparison: Comparison, *, seconds: float) -> Round:
    """Every cell once. The targets come in random order, so that none always profits from what ran before it."""
    measured = Round()
    for is_streamed in (False, True):
        for concurrency in CONCURRENCIES:
            for name in random.sample(list(comparison.targets), len(comparison.targets)):
                measured.cells[name, concurrency, is_streamed] = _measure(
                    comparison, name, concurrency=concurrency, is_streamed=is_streamed, seconds=seconds
                )
            if concurrency == STEADY_CONCURRENCY and not is_streamed:
                _measure_steadily(comparison, measured, seconds=seconds)
    return measured


def _measure_steadily(comparison: Comparison, measured: Round, *, seconds: float) -> None:
    for name in random.sample(STEADY_TARGETS, len(STEADY_TARGETS)):
        highest_per_s = measured.cells[name, STEADY_CONCURRENCY, False].per_s
        measured.steady[name] = measure(
            comparison.targets[name],
            comparison.surroundings,
            body=body(is_streamed=False),
            concurrency=STEADY_CONCURRENCY,
            # A hundredth of the requests decides the p99, so there must be many.
            seconds=2 * seconds,
            rate_per_s=highest_per_s / 2,
        )


def _measure(
    comparison: Comparison, name: str, *, concurrency: int, is_streamed: bool, seconds: float
) -> Cell:
    return measure(
        comparison.targets[name],
        comparison.surroundings,
        body=body(is_streamed=is_streamed),
        concurrency=concurrency,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
