"""An account's ledger as its owner reads it: what came in and what went out, newest first, in plain words."""

import csv
import datetime as dt
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db import connection
from django.db.models import Sum

from accounts.models import Account
from billing import wording
from billing.models import LedgerTransaction, TopUp
from billing.spreadsheets import harmless
from catalog.money import usd_string

T = TypeVar("T")

CSV_COLUMNS = ("date_utc", "what", "amount_usd", "fee_usd", "balance_usd", "reference")
# The balance counts every movement, whatever the filter leaves out. A loss of the platform's moves no credit of the
# account and is not in here; a dispute that was lost is, for what it takes was frozen before.
_MOVEMENTS = """
    SELECT movement.id, movement.created_at, movement.kind, movement.reference, movement.description, movement.amount,
        movement.balance,
        coalesce((SELECT sum(p.amount_nanousd) FROM billing_posting p
            JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id
            WHERE p.transaction_id = movement.id AND l.kind IN ('fee_revenue', 'refunds')), 0)
    FROM (
        SELECT t.id, t.created_at, t.kind, t.reference, t.description, sum(p.amount_nanousd) AS amount,
            sum(sum(p.amount_nanousd)) OVER (ORDER BY t.id) AS balance
        FROM (
            SELECT p.transaction_id, p.amount_nanousd FROM billing_ledgeraccount l
            JOIN billing_posting p ON p.ledger_account_id = l.id
            WHERE l.kind = 'customer_credits' AND l.account_id = %(account)s
            UNION ALL
            SELECT id, 0 FROM billing_ledgertransaction
            WHERE account_id = %(account)s AND kind = 'dispute' AND starts_with(reference, 'dispute-lost:')
        ) AS p
        JOIN billing_ledgertransaction t ON t.id = p.transaction_id
        GROUP BY t.id
    ) AS movement
    WHERE (%(kind)s = '' OR movement.kind = %(kind)s)
        AND (%(older_than)s::bigint IS NULL OR movement.id < %(older_than)s)
    ORDER BY movement.id DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One movement of the account's credit, in nano-USD. Positive came in; the fee was paid, or given back, beside it.

    The balance is the credit in the ledger after it.
    """

    id: int
    at: dt.datetime
    text: str
    amount_nanousd: int
    fee_nanousd: int
    balance_nanousd: int
    reference: str
    # The receipt it belongs to; None: it is about no payment.
    topup_id: int | None
    # Of usage: the hour whose requests it pays.
    hour: dt.datetime | None
    # Whether credit was bought; anything else moves the fee of an earlier purchase, if it moves one.
    is_purchase: bool

    @property
    def fee_given_back_nanousd(self) -> int:
        return max(0, -self.fee_nanousd)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, newest first; `older_than` continues after them, None at the end."""

    rows: Sequence[T]
    older_than: int | None


def lines(*, account: Account, kind: str = "", older_than: int | None = None, limit: int = 25) -> Page[Line]:
    """The movements of the account's credit before the ledger transaction of that id, of one kind or of all."""
    found = list(_movements(account=account, kind=kind, older_than=older_than, limit=limit + 1))
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


def lines_csv(*, account: Account, kind: str = "") -> str:
    """All of them as a file with a header line; amounts are USD with nine decimals, times ISO 8601 in UTC."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(CSV_COLUMNS)
    for line in _movements(account=account, kind=kind, older_than=None, limit=None):
        when = line.at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        amounts = (line.amount_nanousd, line.fee_nanousd, line.balance_nanousd)
        writer.writerow([when, harmless(line.text), *map(usd_string, amounts), harmless(line.reference)])
    return written.getvalue()


def _movements(*, account: Account, kind: str, older_than: int | None, limit: int | None) -> Iterator[Line]:
    asked: dict[str, int | str | None] = {
        "account": account.pk,
        "kind": kind,
        "older_than": older_than,
        "limit": limit,
    }
    with connection.cursor() as cursor:
        cursor.execute(_MOVEMENTS, asked)
        movements = cursor.fetchall()
    for entry_id, at, of_kind, reference, description, amount, balance, fee in movements:
        words = wording.in_words(kind=of_kind, reference=reference, description=description)
        yield Line(
            id=entry_id,
            at=at,
            text=words.text,
            amount_nanousd=int(amount),
            fee_nanousd=int(fee),
            balance_nanousd=int(balance),
            reference=reference,
            topup_id=words.topup_id,
            hour=words.hour,
            is_purchase=of_kind == LedgerTransaction.Kind.TOPUP,
        )


def payments(*, account: Account, older_than: int | None = None, limit: int = 10) -> Page[TopUp]:
    """The account's top-ups before the one of that id, whatever became of them."""
    topups = TopUp.objects.filter(account=account).prefetch_related("refunds", "disputes").order_by("-id")
    if older_than is not None:
        topups = topups.filter(pk__lt=older_than)
    found = list(topups[: limit + 1])
    return Page(found[:limit], found[limit - 1].pk if len(found) > limit else None)


def pending_nanousd(*, account: Account) -> int:
    """The credit of payments that were begun and of which nobody has said yet what became of them, in nano-USD."""
    pending = TopUp.objects.filter(account=account, status=TopUp.Status.PENDING)
    return pending.aggregate(total=Sum("credit_nanousd"))["total"] or 0
