"""Work on a ledger, made inside an instance: `manage shell -c "from bench.parts import bookkeeping; …"`.

Each function prints one JSON object. What is posted moves money between accounts of the platform only, so that the
books of the instance agree afterwards.
"""

import datetime as dt
import itertools
import json
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from django.db import connection, transaction
from django.utils import timezone

from accounts.models import Account
from bench.parts import meeting
from billing import chain, ledger, ledger_export, verifying
from billing.ledger import Leg
from billing.models import ChainHead, LedgerAccount, LedgerTransaction
from usage import auditing

_PER_COMMIT = 500


def post_for(*, seconds: float, writer: int, is_chained: bool, meeting_place: str) -> None:
    """Post one transaction after the other, each in a commit of its own, together with the other writers."""
    if not is_chained:
        _unchain(writer)
    accounts = list(Account.objects.order_by("pk").values_list("pk", flat=True))
    account_id = accounts[writer % len(accounts)]
    _post(account_id)
    starts_at = meeting.meet(Path(meeting_place), writer)
    posted, ends_at = 0, starts_at + seconds
    while time.monotonic() < ends_at:
        _post(account_id)
        posted += 1
    _print(posted=posted, seconds=time.monotonic() - starts_at)


def fill(*, transactions: int) -> None:
    """Post until the ledger has that many transactions, hundreds in a commit."""
    account_id = Account.objects.earliest("pk").pk
    missing = transactions - LedgerTransaction.objects.count()
    for _ in range(0, missing, _PER_COMMIT):
        with transaction.atomic():
            for _ in range(_PER_COMMIT):
                _post(account_id)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE billing_ledgertransaction, billing_posting")
    _print(transactions=LedgerTransaction.objects.count())


def prove() -> None:
    """Verify the chain, audit the books, and export every posting; how long each takes, in seconds."""
    began = time.perf_counter()
    report = verifying.verify_chain()
    verified = time.perf_counter()
    books = auditing.audit_ledger(at=timezone.now())
    audited = time.perf_counter()
    today = timezone.now().date()
    day = dt.timedelta(days=1)
    rows = sum(1 for _ in ledger_export.rows(first=today - day, last=today + day))
    exported = time.perf_counter()
    assert report.broken is None, report.broken
    assert not books.discrepancies, books.discrepancies
    _print(
        transactions=report.verified,
        postings=rows,
        records=books.checked["usage records"],
        waiting=books.checked["of them not rolled up yet"],
        verify_s=verified - began,
        audit_s=audited - verified,
        export_s=exported - audited,
    )


def _post(account_id: int) -> None:
    ledger.post(
        reference=f"bench:{uuid.uuid4()}",
        kind=LedgerTransaction.Kind.ADJUSTMENT,
        account=account_id,
        description="for a benchmark",
        legs=[Leg(LedgerAccount.Kind.PROMOTIONS, -1), Leg(LedgerAccount.Kind.FEE_REVENUE, 1)],
        at=timezone.now(),
    )


def _unchain(writer: int) -> None:
    """Post as if there were no chain: no lock, no hash, and numbers of the writer's own."""
    numbers = _numbers(writer)

    def any_head() -> ChainHead:
        return ChainHead(count=next(numbers), hash=chain.GENESIS)

    chain.lock_head = any_head
    chain.digest = lambda **_said: chain.GENESIS
    chain.advance = lambda head, *, to_hash: None


def _numbers(writer: int) -> Iterator[int]:
    return itertools.count(time.time_ns() // 1000 * 100 + writer, 100)


def _print(**result: float) -> None:
    json.dump(result, sys.stdout)
