"""An account's ledger as its owner reads it: what came in and what went out, newest first, in plain words."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db.models import Q, Sum

from accounts.models import Account
from billing.models import LedgerAccount, LedgerTransaction, Posting, TopUp

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """One movement of the account's credit. Positive came in; the fee was paid beside it. In nano-USD."""

    at: dt.datetime
    text: str
    amount_nanousd: int
    fee_nanousd: int
    # The receipt it belongs to; None: it was not bought.
    topup_id: int | None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, newest first; `older_than` continues after them, None at the end."""

    rows: Sequence[T]
    older_than: int | None


def lines(*, account: Account, older_than: int | None = None, limit: int = 25) -> Page[Line]:
    """The movements of the account's credit before the ledger transaction of that id."""
    own = Q(
        postings__ledger_account__kind=LedgerAccount.Kind.CUSTOMER_CREDITS,
        postings__ledger_account__account=account.pk,
    )
    fees = Q(postings__ledger_account__kind=LedgerAccount.Kind.FEE_REVENUE)
    movements = (
        LedgerTransaction.objects.filter(account=account)
        .annotate(
            amount=Sum("postings__amount_nanousd", filter=own),
            fee=Sum("postings__amount_nanousd", filter=fees),
        )
        # A loss of the platform's concerns the account, but moves none of its credit.
        .exclude(amount=None)
        .order_by("-id")
    )
    if older_than is not None:
        movements = movements.filter(pk__lt=older_than)
    found = list(movements[: limit + 1])
    return Page(
        [
            Line(
                at=movement.created_at,
                text=_in_words(movement),
                amount_nanousd=movement.amount,
                fee_nanousd=movement.fee or 0,
                topup_id=_topup_id(movement),
            )
            for movement in found[:limit]
        ],
        found[limit - 1].pk if len(found) > limit else None,
    )


def payments(*, account: Account, older_than: int | None = None, limit: int = 10) -> Page[TopUp]:
    """The account's top-ups before the one of that id, whatever became of them."""
    topups = TopUp.objects.filter(account=account).order_by("-id")
    if older_than is not None:
        topups = topups.filter(pk__lt=older_than)
    found = list(topups[: limit + 1])
    return Page(found[:limit], found[limit - 1].pk if len(found) > limit else None)


def credit_in_ledger(*, account: Account) -> int:
    """The account's credit by its ledger, in nano-USD: its balance, and what it used that is not yet posted."""
    own = Posting.objects.filter(
        ledger_account__kind=LedgerAccount.Kind.CUSTOMER_CREDITS, ledger_account__account=account
    )
    return own.aggregate(total=Sum("amount_nanousd"))["total"] or 0


def _in_words(movement: LedgerTransaction) -> str:
    match movement.kind:
        case LedgerTransaction.Kind.TOPUP:
            return "Credit bought"
        case LedgerTransaction.Kind.PROMOTION:
            return f"Credit granted: {movement.description}"
        case LedgerTransaction.Kind.EXPIRY:
            return f"Granted credit expired: {movement.description}"
        case _:
            # Usage says its hour.
            return movement.description


def _topup_id(movement: LedgerTransaction) -> int | None:
    if movement.kind != LedgerTransaction.Kind.TOPUP:
        return None
    return int(movement.reference.removeprefix("topup:"))
