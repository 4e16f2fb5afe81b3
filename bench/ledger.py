"""`./tollgate bench ledger`: what the teller gets done, what posting costs, and what it takes to prove and export it.

Without the chain is the same code with its lock and its hash taken out, on an instance of its own: such a ledger could
not be audited. The rounds are interleaved. The audit of millions of usage records has an instance of its own, after
the others are gone.
"""

import argparse
import json
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.parts import ledger_report, meeting, page, processes
from bench.parts.installation import Installation, installation
from bench.parts.ledger_report import Measured, Posted, Told

_AT_ONCE = (64, 256)
_AUDITED_ACCOUNTS = 10
# Usage records that begin in an hour, over all these accounts.
_PER_HOUR = 1_000
# The smaller audit has this part of the records; both have whole hours.
_PART = 10


def main() -> None:
    """Measure and write the section."""
    options = _options()
    measured = Measured()
    others_busy: list[float] = []
    own_accounts = max(*options.accounts, *options.writers)
    with installation(accounts=own_accounts) as chained, installation(accounts=max(options.writers)) as other:
        for done in range(options.rounds):
            others_busy.append(processes.busy_share(1.0))
            measured.rounds.append(
                (_post_once(chained, other, options), _tell_once(chained, options)),
            )
            print(f"round {done + 1} of {options.rounds} done", flush=True)
        _inside(chained, f"bookkeeping.fill(transactions={options.transactions})")
        measured.proofs.extend(_inside(chained, "bookkeeping.prove()") for _ in range(options.rounds))
        chained.audit()
    _prove_many(measured, options.records)
    page.publish(
        options,
        "ledger",
        ledger_report.write(
            measured,
            provenance=page.provenance("ledger", others_busy),
            seconds=options.seconds,
            per_hour=_PER_HOUR,
            accounts=_AUDITED_ACCOUNTS,
        ),
    )


def _options() -> argparse.Namespace:
    parser = page.parser(
        "ledger", "Holds, settlements and postings a second; what it takes to prove and export them."
    )
    page.add_rounds(parser, rounds=3, seconds=3.0)
    parser.add_argument(
        "--accounts",
        type=int,
        nargs="+",
        default=[1, 10, 1_000],
        metavar="N",
        help="that hold and settle (default: 1 10 1000)",
    )
    parser.add_argument(
        "--writers", type=int, nargs="+", default=[1, 8], metavar="N", help="at once (default: 1 8)"
    )
    parser.add_argument(
        "--transactions",
        type=int,
        default=20_000,
        metavar="N",
        help="to prove and export (default: %(default)s)",
    )
    parser.add_argument(
        "--records",
        type=int,
        default=10_000_000,
        metavar="N",
        help=f"usage records to audit, in steps of {_PART * _PER_HOUR:,} (default: %(default)s)",
    )
    few = {"accounts": [1, 10], "writers": [1, 2], "transactions": 2_000, "records": 20_000}
    return page.read(parser, rounds=1, seconds=1.0, **few)


def _inside(own: Installation, call: str) -> dict[str, Any]:
    """What a call of `bookkeeping`, `counter` or `records` prints, in a process of the instance."""
    command = f"from bench.parts import {call.partition('.')[0]}; {call}"
    answer: dict[str, Any] = json.loads(
        own.instance.manage("shell", "-v", "0", "-c", command, check=True).stdout
    )
    return answer


def _tell_once(own: Installation, options: argparse.Namespace) -> Told:
    cells = [(accounts, at_once) for at_once in _AT_ONCE for accounts in options.accounts]
    return {
        cell: _inside(
            own, f"counter.serve_for(seconds={options.seconds}, accounts={cell[0]}, at_once={cell[1]})"
        )
        for cell in random.sample(cells, len(cells))
    }


def _post_once(chained: Installation, unchained: Installation, options: argparse.Namespace) -> Posted:
    cells = [(is_chained, writers) for is_chained in (True, False) for writers in options.writers]
    return {
        cell: _posted_per_s(chained if cell[0] else unchained, *cell, seconds=options.seconds)
        for cell in random.sample(cells, len(cells))
    }


def _prove_many(measured: Measured, asked: int) -> None:
    """Make usage records, a part of them and then all, and audit either; then export what was posted for them."""
    step = _PART * _PER_HOUR
    whole = max(asked // step, 1) * step
    with installation(accounts=_AUDITED_ACCOUNTS) as own:
        for count in (whole // _PART, whole):
            filled = _inside(own, f"records.fill(records={count}, of={whole}, per_hour={_PER_HOUR})")
            print(
                f"{count:,} usage records made in {filled['made_s']:.0f} s,"
                f" {filled['database_bytes'] / 1e9:.2f} GB on disk",
                flush=True,
            )
            measured.fills.append(filled)
            measured.audits.append(_inside(own, "records.audit()"))
        measured.export.update(_inside(own, "records.export()"))


def _posted_per_s(own: Installation, is_chained: bool, writers: int, *, seconds: float) -> float:  # noqa: FBT001
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=writers) as pool:

        def write(writer: int) -> dict[str, Any]:
            how = f"seconds={seconds}, writer={writer}, is_chained={is_chained}, meeting_place={folder!r}"
            return _inside(own, f"bookkeeping.post_for({how})")

        written = [pool.submit(write, writer) for writer in range(writers)]
        meeting.start_together(Path(folder), participants=writers)
    return float(sum(one["posted"] / one["seconds"] for one in (each.result() for each in written)))


if __name__ == "__main__":
    main()
