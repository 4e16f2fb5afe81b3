"""The section of `bench ledger`: medians over rounds, ratios within them, and what limited each figure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.parts import page

_SECTION = """\
## The ledger

{provenance}

### Holds and settlements

One teller in a process of its own, on PostgreSQL with durable commits: no HTTP, no Redis, no upstream. Each of so many
requests at once holds, settles as soon as that is answered, and comes again, {seconds} s long; medians over {rounds}
rounds. The requests take turns over the keys of so many accounts.

{telling}

“To one account” is taken within each round. “In a batch” counts holds and settlements, which share one commit. “Teller
busy” and “PostgreSQL busy” are the processor time of the teller's process and of the one that serves it; “Disk” is what
the batches would wait if each waited once for a page to be durable, which took {sync_ms} ms here. What is left is
waiting: for the other one's core, and for the disk beyond that. {telling_limit}

### Postings

Each writer is a process that posts transactions of two postings one after the other, each in a commit of its own, for
{seconds} s; medians over {rounds} rounds. “Without the chain” is the same code without the lock on the chain's head and
without the hash, on a second instance.

{posting}

{posting_limit}

Then {transactions:,} transactions ({postings:,} postings) were proven and exported, in one process:

{proving}

“To posting” is how many transactions that takes in the time in which one writer posts one. {beside}

### The audit

Usage records made by SQL, {per_hour:,} an hour over {accounts} accounts, with their hours, postings and wallets; the
database was {size} GB in the end.

{auditing}

{auditing_limit}

### Exports

From the same instance: the whole ledger as `export_ledger` writes it, and the ledger of one account as its owner gets
it. “Memory grew” is by how much the peak of the process did.

{exporting}

{exporting_limit}
"""

# Transactions a second, by whether there is a chain and by the number of writers.
Posted = dict[tuple[bool, int], float]
# What `counter.serve_for` prints, by accounts and by requests at once.
Told = dict[tuple[int, int], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that was measured; `proofs` a time for each round, `audits` one for each number of records."""

    rounds: list[tuple[Posted, Told]] = field(default_factory=list)
    proofs: list[dict[str, Any]] = field(default_factory=list)
    fills: list[dict[str, Any]] = field(default_factory=list)
    audits: list[dict[str, Any]] = field(default_factory=list)
    export: dict[str, float] = field(default_factory=dict)


def write(measured: Measured, *, provenance: str, seconds: float, per_hour: int, accounts: int) -> str:
    """The whole section as Markdown."""
    posted = [posted for posted, _ in measured.rounds]
    told = [told for _, told in measured.rounds]
    syncs = [cell["sync_s"] for one in told for cell in one.values()]
    sync_s = statistics.median(syncs)
    return _SECTION.format(
        provenance=provenance,
        seconds=f"{seconds:g}",
        rounds=len(measured.rounds),
        telling=_telling(told, sync_s),
        sync_ms=f"{sync_s * 1000:.2f}",
        telling_limit=_telling_limit(told),
        posting=_posting(posted),
        posting_limit=_posting_limit(posted),
        transactions=measured.proofs[0]["transactions"],
        postings=measured.proofs[0]["postings"],
        proving=_proving(posted, measured.proofs),
        beside=_beside(measured.proofs),
        per_hour=per_hour,
        accounts=accounts,
        size=f"{measured.fills[-1]['database_bytes'] / 1e9:.1f}",
        auditing=_auditing(measured),
        auditing_limit=_auditing_limit(measured.audits),
        exporting=_exporting(measured.export),
        exporting_limit=_exporting_limit(measured.export),
    )


# --- Holds and settlements -----------------------------------------------------------------------------------


def _telling(told: Sequence[Told], sync_s: float) -> str:
    heads = ("At once", "Accounts", "Pairs a second", "To one account", "Batches a second", "In a batch")
    busy = ("Teller busy", "PostgreSQL busy", "Disk")
    rows = []
    for cell in sorted(told[0], key=lambda cell: (cell[1], cell[0])):
        accounts, at_once = cell
        fewest = min(one for one, other in told[0] if other == at_once)
        ratio = statistics.median(
            one[cell]["pairs_per_s"] / one[fewest, at_once]["pairs_per_s"] for one in told
        )
        rows.append(
            [
                str(at_once),
                f"{accounts:,}",
                f"{_median(told, cell, 'pairs_per_s'):,.0f}",
                f"{ratio:.0%}",
                f"{_median(told, cell, 'batches_per_s'):,.0f}",
                f"{_median(told, cell, 'in_a_batch'):,.0f}",
                f"{_median(told, cell, 'own_busy'):.0%}",
                f"{_median(told, cell, 'backend_busy'):.0%}",
                f"{_median(told, cell, 'batches_per_s') * sync_s:.0%}",
            ]
        )
    return page.table((*heads, *busy), rows, left=0)


def _telling_limit(told: Sequence[Told]) -> str:
    """Who worked most of the time, as the two take turns: all are in one batch, and ask again when it is answered."""
    own = [_median(told, cell, "own_busy") for cell in told[0]]
    backend = [_median(told, cell, "backend_busy") for cell in told[0]]
    together = [one + other for one, other in zip(own, backend, strict=True)]
    more = [other > one for one, other in zip(own, backend, strict=True)]
    who = (
        "PostgreSQL's" if all(more) else "the teller's" if not any(more) else "now the one's, now the other's"
    )
    return (
        "The two take turns, as all requests are in one batch and come again when\nit is answered: together they were"
        f" busy for {min(together):.0%} to {max(together):.0%} of the time, and the larger part is {who}."
    )


def _median(told: Sequence[Told], cell: tuple[int, int], name: str) -> float:
    return statistics.median(one[cell][name] for one in told)


# --- Postings ------------------------------------------------------------------------------------------------


def _posting(rounds: Sequence[Posted]) -> str:
    heads = ("Ledger", "Writers", "Transactions a second", "To without the chain", "To one writer")
    first = min(writers for _, writers in rounds[0])
    cells = sorted(rounds[0], key=lambda cell: (not cell[0], cell[1]))
    return page.table(heads, [_posting_row(rounds, cell, first=first) for cell in cells])


def _posting_row(rounds: Sequence[Posted], cell: tuple[bool, int], *, first: int) -> list[str]:
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


def _posting_limit(rounds: Sequence[Posted]) -> str:
    """What the lock on the head costs: what more writers gain with it, beside what they gain without."""
    writers = sorted({writers for _, writers in rounds[0]})
    few, many = writers[0], writers[-1]
    gained = {
        is_chained: statistics.median(one[is_chained, many] / one[is_chained, few] for one in rounds)
        for is_chained in (True, False)
    }
    return (
        f"With the chain, writers take turns from the lock on the head until their commit: {many} do"
        f" {gained[True]:.1f} times\nwhat {few} does, and {gained[False]:.1f} times without it."
    )


def _proving(rounds: Sequence[Posted], proofs: Sequence[dict[str, Any]]) -> str:
    first = min(writers for _, writers in rounds[0])
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


def _beside(proofs: Sequence[dict[str, Any]]) -> str:
    """What else the audit went through: the requests of the teller, which the worker was still rolling up perhaps."""
    records = max(proof["records"] for proof in proofs)
    waiting = [proof["waiting"] for proof in proofs]
    how_many = f"{min(waiting):,}" if len(set(waiting)) == 1 else f"{min(waiting):,} to {max(waiting):,}"
    return (
        f"The audit went\nthrough the {records:,} usage records of the holds and settlements as well, {how_many}"
        " of them not rolled up yet."
    )


# --- Audit and exports ---------------------------------------------------------------------------------------


def _auditing(measured: Measured) -> str:
    heads = ("Usage records", "Hourly sums", "Ledger transactions", "Table GB", "Indexes GB", "Made in s")
    rows = [
        [
            f"{audit['records']:,}",
            f"{audit['hours']:,}",
            f"{audit['transactions']:,}",
            f"{fill['table_bytes'] / 1e9:.2f}",
            f"{fill['index_bytes'] / 1e9:.2f}",
            f"{fill['made_s']:,.1f}",
            f"{audit['audit_s']:,.2f}",
            f"{audit['records'] / audit['audit_s']:,.0f}",
            f"{audit['verify_s']:,.2f}",
        ]
        for fill, audit in zip(measured.fills, measured.audits, strict=True)
    ]
    times = ("`audit_ledger` s", "Records a second", "Chain s")
    return page.table((*heads, *times), rows, left=0)


def _auditing_limit(audits: Sequence[dict[str, Any]]) -> str:
    fewer, all_of_them = audits[0], audits[-1]
    records = all_of_them["records"] / fewer["records"]
    took = all_of_them["audit_s"] / fewer["audit_s"]
    own = all_of_them["own_s"] / all_of_them["audit_s"]
    backend = all_of_them["backend_s"] / all_of_them["audit_s"]
    limit = (
        "one core of PostgreSQL's is the\nlimit"
        if backend > 0.8  # noqa: PLR2004 - four fifths of the time
        else "the rest is\nwaiting, for the disk or for a core"
    )
    return (
        f"{records:,.0f} times the records take {took:,.1f} times as long. PostgreSQL's process was busy for"
        f" {backend:.0%} of the\naudit and ours for {own:.0%}: {limit}."
    )


_EXPORTS = (("`export_ledger`", "whole"), ("an account's own CSV", "own"))


def _exporting(export: dict[str, float]) -> str:
    rows = [
        [
            words,
            f"{export[f'{name}_rows']:,.0f}",
            f"{export[f'{name}_seconds']:,.2f}",
            f"{export[f'{name}_rows'] / export[f'{name}_seconds']:,.0f}",
            f"{export[f'{name}_busy']:.0%}",
            f"{export[f'{name}_grown_bytes'] / 1e6:,.1f}",
        ]
        for words, name in _EXPORTS
    ]
    return page.table(("Export", "Rows", "Seconds", "Rows a second", "Process busy", "Memory grew MB"), rows)


def _exporting_limit(export: dict[str, float]) -> str:
    ours = [words for words, name in _EXPORTS if export[f"{name}_busy"] >= 0.5]  # noqa: PLR2004
    theirs = [words for words, name in _EXPORTS if export[f"{name}_busy"] < 0.5]  # noqa: PLR2004
    said = [f"{' and '.join(ours)}: most of the time is Python's, which writes the rows." if ours else ""]
    said.append(f"{' and '.join(theirs)}: most of it is waiting for PostgreSQL's answer." if theirs else "")
    return " ".join(filter(None, said))
