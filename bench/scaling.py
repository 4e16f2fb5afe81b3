"""`./tollgate bench scaling`: how throughput grows with web processes, and with the accounts that share a batch.

An instance for each number of processes runs at the same time, and those that are not measured have nothing to do. So
the rounds are interleaved here too.
"""

import argparse
import contextlib
import os
import random
import statistics
from collections.abc import Sequence

from bench.parts import page, processes
from bench.parts.installation import Installation, installation
from bench.parts.measuring import Cell, Surroundings, Target, measure
from bench.parts.requesting import body

_CONCURRENCY = 64
# So often does every key come up before anything is measured, to have been looked up once by every process.
_TURNS_TO_WARM_UP = 5

_SECTION = """\
## How it scales

{provenance}

Plain requests, {concurrency} at once, {seconds} s each; medians over {rounds} rounds. The requests take turns over
the keys of so many accounts, so that a batch of the teller locks one wallet or up to {concurrency}.

{table}

“To the first” is the throughput against that of the first row in the same round. Nothing is pinned: {cores} cores carry
everything, web processes, PostgreSQL, Redis, the upstream and the load generator. {caution}
"""
_CROWDED = (
    "That is fewer than\nthe parts that want one, so what more processes add here is what the first one left unused, "
    "not what they add on a\nlarger machine."
)

# By number of processes and number of accounts.
Round = dict[tuple[int, int], Cell]


def main() -> None:
    """Measure and write the section."""
    options = _options()
    rounds: list[Round] = []
    others_busy: list[float] = []
    with contextlib.ExitStack() as stack:
        installations = {
            number: stack.enter_context(installation(accounts=max(options.accounts), processes=number))
            for number in options.processes
        }
        cells = [(number, accounts) for number in options.processes for accounts in options.accounts]
        for cell in cells:
            _measure(installations, cell, requests=max(_CONCURRENCY, _TURNS_TO_WARM_UP * cell[1]))
        for done in range(options.rounds):
            others_busy.append(processes.busy_share(1.0))
            order = random.sample(cells, len(cells))
            rounds.append({cell: _measure(installations, cell, seconds=options.seconds) for cell in order})
            print(f"round {done + 1} of {options.rounds} done", flush=True)
        for own in installations.values():
            own.audit()
    page.publish(options, "scaling", _report(rounds, cells, options, others_busy))


def _options() -> argparse.Namespace:
    parser = page.parser("scaling", "Throughput by web processes and by accounts in a batch.")
    page.add_rounds(parser, rounds=5, seconds=3.0)
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        default=[1, 2],
        metavar="N",
        help="numbers of web processes (default: 1 2)",
    )
    parser.add_argument(
        "--accounts",
        type=int,
        nargs="+",
        default=[1, 10, 1_000],
        metavar="N",
        help="numbers of accounts (default: 1 10 1000)",
    )
    return page.read(parser, rounds=1, seconds=0.5, accounts=[1, 10])


def _measure(installations: dict[int, Installation], cell: tuple[int, int], **how: float) -> Cell:
    """One cell, for so many `seconds` or `requests`."""
    number, accounts = cell
    own = installations[number]
    return measure(
        Target(f"{number} processes, {accounts} accounts", own.url, own.keys[:accounts], tuple(own.web_pids)),
        Surroundings(own.sandbox_pid, os.sched_getaffinity(0)),
        body=body(is_streamed=False),
        concurrency=_CONCURRENCY,
        **how,
    )


def _report(
    rounds: Sequence[Round],
    cells: Sequence[tuple[int, int]],
    options: argparse.Namespace,
    others_busy: Sequence[float],
) -> str:
    cores = len(os.sched_getaffinity(0))
    heads = ("Web processes", "Accounts", "Requests a second", "To the first", "p50 ms", "p99 ms")
    busy = ("Web processes busy", "Load and upstream busy", "All cores busy")
    return _SECTION.format(
        provenance=page.provenance("scaling", others_busy),
        concurrency=_CONCURRENCY,
        seconds=f"{options.seconds:g}",
        rounds=len(rounds),
        table=page.table((*heads, *busy), [_row(rounds, cell, first=cells[0]) for cell in cells], left=0),
        cores=cores,
        # The web processes, PostgreSQL, the upstream, and the load generator.
        caution=_CROWDED if cores < max(options.processes) + 3 else "",
    ).rstrip()


def _row(rounds: Sequence[Round], cell: tuple[int, int], *, first: tuple[int, int]) -> list[str]:
    found = [measured[cell] for measured in rounds]
    to_first = statistics.median(measured[cell].per_s / measured[first].per_s for measured in rounds)
    return [
        str(cell[0]),
        f"{cell[1]:,}",
        f"{statistics.median(one.per_s for one in found):,.0f}",
        f"{to_first:.0%}",
        f"{statistics.median(one.p50_ms for one in found):,.1f}",
        f"{statistics.median(one.p99_ms for one in found):,.1f}",
        f"{statistics.median(one.worker_busy for one in found):.0%}",
        f"{statistics.median(one.load_busy for one in found):.0%}",
        f"{statistics.median(one.cores_busy for one in found):.0%}",
    ]


if __name__ == "__main__":
    main()
