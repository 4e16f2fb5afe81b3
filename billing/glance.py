"""The money of all accounts in a few figures: what an operator looks at first."""

import datetime as dt
from dataclasses import dataclass

from django.db.models import F, QuerySet, Sum
from django.db.models.functions import Least

from billing.models import Dispute, Refund, TopUp, Wallet


@dataclass(frozen=True, slots=True)
class Glance:
    """In nano-USD: what customers have, what was paid in this UTC month, and what goes back or may."""

    balance_nanousd: int
    held_nanousd: int
    paid_nanousd: int
    on_its_way_back_nanousd: int
    disputed_nanousd: int


def at_a_glance(*, at: dt.datetime) -> Glance:
    """As it stands. Summed from wallets and payments, which are few beside the postings of the ledger."""
    month = at.astimezone(dt.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    paid = TopUp.objects.filter(status=TopUp.Status.PAID, paid_at__gte=month)
    pending = Refund.objects.filter(status=Refund.Status.PENDING)
    wallets = Wallet.objects.aggregate(
        balance=Sum("balance_nanousd", default=0),
        # What is held may be more than there is, where a dispute waits for it.
        held=Sum(Least("held_nanousd", "balance_nanousd"), default=0),
    )
    total = F("credit_nanousd") + F("fee_nanousd") + F("loss_nanousd")
    return Glance(
        balance_nanousd=wallets["balance"],
        held_nanousd=wallets["held"],
        paid_nanousd=paid.aggregate(sum=Sum("total_nanousd", default=0))["sum"],
        on_its_way_back_nanousd=pending.aggregate(sum=Sum(total, default=0))["sum"],
        disputed_nanousd=open_disputes().aggregate(sum=Sum("amount_nanousd", default=0))["sum"],
    )


def open_disputes() -> QuerySet[Dispute]:
    """Those that a bank has not decided, and that can be answered at the payment company."""
    return Dispute.objects.filter(status=Dispute.Status.OPEN)
