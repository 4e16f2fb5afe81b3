"""Whether the ledger still says what was posted: its chain, followed from the first transaction to the head."""

import datetime as dt
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import connection, transaction

from billing import chain
from billing.models import AuditedHead, LedgerTransaction

_CHUNK = 2000
# One statement, so that head and transactions are of one moment.
_LEDGER = """
    SELECT head.count, head.hash, t.id, t.number, t.reference, t.kind, t.account_id, t.description, t.created_at,
        t.previous_hash, t.hash, l.kind, l.account_id, l.provider, p.amount_nanousd
    FROM (SELECT 1) AS always
    LEFT JOIN billing_chainhead AS head ON true
    LEFT JOIN (
        billing_ledgertransaction AS t
        LEFT JOIN billing_posting AS p ON p.transaction_id = t.id
        LEFT JOIN billing_ledgeraccount AS l ON l.id = p.ledger_account_id
    ) ON true
    ORDER BY t.number, t.id, p.id
"""


@dataclass(frozen=True, slots=True)
class ChainReport:
    """How many transactions are as they were posted, the head's hash, and what is wrong with the first that is not.

    The head's hash is an anchor: kept elsewhere, it shows whether the whole chain was written anew.
    """

    verified: int
    head_hash: str
    broken: str | None


class _Head(NamedTuple):
    posted: int | None
    hash: str | None


class _Entry(NamedTuple):
    id: int
    number: int
    reference: str
    kind: str
    account_id: int
    description: str
    created_at: dt.datetime
    previous_hash: str
    hash: str
    postings: list[chain.PostingFacts]

    def __str__(self) -> str:
        return f"ledger transaction {self.number:,} ({self.reference})"

    @property
    def computed_hash(self) -> str:
        return chain.digest(
            previous_hash=self.previous_hash,
            number=self.number,
            reference=self.reference,
            kind=self.kind,
            account_id=self.account_id,
            description=self.description,
            created_at=self.created_at,
            postings=self.postings,
        )


def verify_chain() -> ChainReport:
    """Compute every hash anew, and name the first transaction that was changed, put in or taken out.

    Reads only, in one snapshot and in flat memory, and locks nothing.
    """
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(_LEDGER)
        rows = itertools.chain.from_iterable(iter(lambda: cursor.fetchmany(_CHUNK), []))
        first = next(rows)
        head = _Head(*first[:2])
        verified, broken = _follow(head, _entries(itertools.chain([first], rows)))
    return ChainReport(verified=verified, head_hash=head.hash or chain.GENESIS, broken=broken)


def still_has(*, number: int, entry_hash: str) -> bool:
    """Whether the transaction of that number has that hash; number 0 is before the first one."""
    if number == 0:
        return entry_hash == chain.GENESIS
    return LedgerTransaction.objects.filter(number=number, hash=entry_hash).exists()


def remember(report: ChainReport, *, at: dt.datetime) -> None:
    """Keep the head of a chain that holds: every later audit looks for it. A repeat does nothing."""
    if report.broken is None and report.verified:
        AuditedHead.objects.get_or_create(
            number=report.verified, hash=report.head_hash, defaults={"seen_at": at}
        )


def _entries(rows: Iterable[Any]) -> Iterator[_Entry]:
    for facts, legs in itertools.groupby(rows, key=lambda row: row[2:11]):
        if facts[0] is not None:
            yield _Entry._make((*facts, [leg[11:] for leg in legs if leg[14] is not None]))


def _follow(head: _Head, entries: Iterable[_Entry]) -> tuple[int, str | None]:
    """How many transactions are right, and the sentence on the first that is not."""
    last: _Entry | None = None
    for entry in entries:
        if broken := _broken_link(last, entry):
            return (last.number if last else 0), broken
        if head.posted is not None and entry.number > head.posted:
            return entry.number - 1, f"{entry} was put in: the chain ends before it"
        last = entry
    number, last_hash = (last.number, last.hash) if last else (0, chain.GENESIS)
    if head.posted is None:
        return number, "the head of the chain is missing" if last else None
    if number < head.posted:
        return (
            number,
            f"ledger transaction {number + 1:,} is missing, and all after it: {head.posted:,} were posted",
        )
    if last_hash != head.hash:
        return (
            number,
            f"{last or 'the head of the chain'} was written anew, with another hash than was posted",
        )
    return number, None


def _broken_link(last: _Entry | None, entry: _Entry) -> str | None:
    number, last_hash = (last.number, last.hash) if last else (0, chain.GENESIS)
    if last and entry.previous_hash == last.previous_hash:
        # Both follow the same one. Whichever still has its own number in its hash was there first.
        return f"{entry} was put in" if entry.computed_hash == entry.hash else f"{last} was put in"
    if last and entry.id < last.id:
        return f"{entry} was moved: it stood before {last}"
    if entry.number != number + 1:
        return f"ledger transaction {number + 1:,} is missing before {entry}"
    if entry.computed_hash != entry.hash:
        return f"{entry} is not what was posted"
    if entry.previous_hash != last_hash:
        return f"{last or entry} was written anew, with another hash than was posted"
    return None
