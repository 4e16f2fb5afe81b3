"""`./tollgate bench ledger`: postings a second with the chain and without, and what it takes to prove them.

Without the chain is the same code with its lock and its hash taken out, on an instance of its own: such a ledger could
not be audited. The rounds of both are interleaved.
"""

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.parts import meeting, page, processes
from bench.parts.installation import Installation, installation

_SECTION = """\
## The ledger

{provenance}

Each writer is a process that posts transactions of two postings one after the other, each in a commit of its own, for
{seconds} s; medians over {rounds} rounds. “Without the chain” is the same code without the lock on the chain's head and
without the hash, on a second instance.

{posting}

With the chain, writers take turns from the lock on the head until their commit, so more writers add what each does
outside of that.

Then {transactions:,} transactions ({postings:,} postings) were proven and exported, in one process:

{proving}

“To posting” is how many transactions that takes in the time in which one writer posts one.
"""

# Transactions a second, by whether there is a chain and by the number of writers.
Round = dict[tuple[bool, int], float]


def main() -> None:
    """Measure and write the section."""
    options = _options()
    rounds: list[Round] = []
    others_busy: list[float] = []
    cells = [(is_chained, writers) for is_chained in (True, False) for writers in options.writers]
    accounts = max(options.writers)
    with installation(accounts=accounts) as chained, installation(accounts=accounts) as unchained:
        for done in range(options.rounds):
            others_busy.append(processes.busy_share(1.0))
            rounds.append(
                {
                    cell: _posted_per_s(chained if cell[0] else unchained, *cell, seconds=options.seconds)
                    for cell in random.sample(cells, len(cells))
                }
            )
            print(f"round {done + 1} of {options.rounds} done", flush=True)
        _inside(chained, f"fill(transactions={options.transactions})")
        proofs = [_inside(chained, "prove()") for _ in range(options.rounds)]
        chained.audit()
    page.publish(options, "ledger", _report(rounds, cells, proofs, options, others_busy))


def _options() -> argparse.Namespace:
    parser = page.parser("ledger", "Postings a second, and what it takes to prove them.")
    page.add_rounds(parser, rounds=5, seconds=5.0)
    parser.add_argument(
        "--writers", type=int, nargs="+", default=[1, 8], metavar="N", help="at once (default: 1 8)"
    )
    parser.add_argument(
        "--transactions",
        type=int,
        default=100_000,
        metavar="N",
        help="to prove and export (default: %(default)s)",
    )
    return page.read(parser, rounds=1, seconds=1.0, writers=[1, 2], transactions=2_000)


def _inside(own: Installation, call: str) -> dict[str, Any]:
    command = f"from bench.parts import bookkeeping; bookkeeping.{call}"
    answer: dict[str, Any] = json.loads(
        own.instance.manage("shell", "-v", "0", "-c", command, check=True).stdout
    )
    return answer


def _posted_per_s(own: Installation, is_chained: bool, writers: int, *, seconds: float) -> float:  # noqa: FBT001
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=writers) as pool:

        def write(writer: int) -> dict[str, Any]:
            how = f"seconds={seconds}, writer={writer}, is_chained={is_chained}, meeting_place={folder!r}"
            return _inside(own, f"post_for({how})")

        written = [pool.submit(write, writer) for writer in range(writers)]
        meeting.start_together(Path(folder), participants=writers)
    return float(sum(one["posted"] / one["seconds"] for one in (each.result() for each in written)))


def _report(
    rounds: Sequence[Round],
    cells: Sequence[tuple[bool, int]],
    proofs: Sequence[dict[str, Any]],
    options: argparse.Namespace,
    others_busy: Sequence[float],
) -> str:
    heads = ("Ledger", "Writers", "Transactions a second", "To without the chain", "To one writer")
    return _SECTION.format(
        provenance=page.provenance("ledger", others_busy),
        seconds=f"{options.seconds:g}",
        rounds=len(rounds),
        posting=page.table(heads, [_row(rounds, cell, first=cells[0][1]) for cell in cells]),
        transactions=proofs[0]["transactions"],
        postings=proofs[0]["postings"],
        proving=_proving(rounds, proofs, first=cells[0][1]),
    )


def _row(rounds: Sequence[Round], cell: tuple[bool, int], *, first: int) -> list[str]:
    is_chained, writers = cell

    def to(other: tuple[bool, int]) -> str:
        return f"{statistics.median(measured[cell] / measured[other] for measured in rounds):.0%}"

    return [
        "with the chain" if is_chained else "without the chain",
        str(writers),
        f"{statistics.median(measured[cell] for measured in rounds):,.0f}",
        to((False, writers)) if is_chained else "",
        to((is_chained, first)),
    ]


def _proving(rounds: Sequence[Round], proofs: Sequence[dict[str, Any]], *, first: int) -> str:
    posted_per_s = statistics.median(measured[True, first] for measured in rounds)
    rows = []
    for words, name in (
        ("`audit_ledger --verify-chain`: the chain", "verify_s"),
        ("`audit_ledger`: everything else", "audit_s"),
        ("`export_ledger`", "export_s"),
    ):
        took_s = statistics.median(proof[name] for proof in proofs)
        per_s = proofs[0]["transactions"] / took_s
        rows.append([words, f"{took_s:,.2f}", f"{per_s:,.0f}", f"{per_s / posted_per_s:,.0f}x"])
    return page.table(("What", "Seconds", "Transactions a second", "To posting"), rows)


if __name__ == "__main__":
    main()
