"""The chain of the ledger: each transaction carries the hash of the one before, so that none can be changed unseen.

What is hashed is everything a transaction says. It is written down in one way only (`digest`), and what was hashed
in a way once is verified in that way for ever: another way needs another name in `_FORM`, and a column that says
which.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Iterable

from billing.models import ChainHead

# What the first transaction follows.
GENESIS = "0" * 64
_FORM = "tollgate ledger 1"

# Of a posting: kind, owner's account id and provider of its ledger account, and the amount in nano-USD.
PostingFacts = tuple[str, int | None, str, int]


def digest(
    *,
    previous_hash: str,
    number: int,
    reference: str,
    kind: str,
    account_id: int,
    description: str,
    created_at: dt.datetime,
    postings: Iterable[PostingFacts],
) -> str:
    """SHA-256, in hex, of a JSON array in ASCII without spaces; the moment is UTC with its microseconds.

    The order of the postings says nothing, so they are sorted.
    """
    said = [
        _FORM,
        previous_hash,
        number,
        reference,
        kind,
        account_id,
        description,
        created_at.astimezone(dt.UTC).isoformat(timespec="microseconds"),
        sorted(postings, key=lambda posting: (posting[0], posting[1] or 0, posting[2], posting[3])),
    ]
    return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode("ascii")).hexdigest()


def lock_head() -> ChainHead:
    """The head under lock: until the database transaction ends, nobody else posts. The last lock that is taken."""
    while (head := ChainHead.objects.select_for_update().first()) is None:
        ChainHead.objects.bulk_create([ChainHead(hash=GENESIS)], ignore_conflicts=True)
    return head


def advance(head: ChainHead, *, to_hash: str) -> None:
    """Move the locked head to the transaction that was just written."""
    head.count += 1
    head.hash = to_hash
    head.save(update_fields=["count", "hash"])
