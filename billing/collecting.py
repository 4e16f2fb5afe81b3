"""Credit that a dispute or a refund may take, and that running requests hold: it is taken as these leave it.

From the beginning it is held in the wallet for whoever takes it, beside what the requests hold. So what a request
leaves is available to nobody else, however many others wait for credit, and when it is taken matters to no one. What
the requests use is not left; the platform keeps that loss.
"""

import datetime as dt

from django.db import transaction

from billing import moving, wallets
from billing.ledger import Leg
from billing.models import Dispute, LedgerAccount, LedgerTransaction, Refund, Wallet


def wait_for(of: Dispute | Refund, *, amount_nanousd: int) -> None:
    """So much is still to take of it: held from now on, and no more than that. The caller saves the row.

    Under the wallet's lock, in the transaction that changes the row.
    """
    wallet = moving.lock(account_id=of.account_id)
    wallet.wait_for(amount_nanousd - of.to_take_nanousd)
    wallets.write(wallets.borrowed_connection(), [wallet])
    of.to_take_nanousd = amount_nanousd


def collect_due(*, at: dt.datetime) -> None:
    """Take what requests have left, in a transaction for each account."""
    waiting = Wallet.objects.filter(to_take_nanousd__gt=0).order_by("account_id")
    for account_id in waiting.values_list("account_id", flat=True):
        collect(account_id=account_id, at=at)


def collect(*, account_id: int, at: dt.datetime) -> None:
    """Take what is there now, disputes before refunds and the oldest first.

    What is left to take is no more than requests still hold: the rest they have used.
    """
    with transaction.atomic():
        wallet = moving.lock(account_id=account_id)
        if not wallet.to_take_nanousd:
            return
        held = wallet.held_by_requests_nanousd
        there = wallet.balance_nanousd - held
        waiting = [(of, of.to_take_nanousd) for of in _waiting(account_id)]
        for of, _ in waiting:
            # What is to be taken must be available.
            wait_for(of, amount_nanousd=0)
        for of, wanted in waiting:
            taken = min(wanted, there)
            waits = min(wanted - taken, held)
            there, held = there - taken, held - waits
            if taken:
                _post(of, taken, at=at)
            wait_for(of, amount_nanousd=waits)
            of.took_later(taken)


def _waiting(account_id: int) -> list[Dispute | Refund]:
    return [
        *Dispute.objects.filter(account_id=account_id, to_take_nanousd__gt=0).order_by("pk"),
        *Refund.objects.filter(account_id=account_id, to_take_nanousd__gt=0).order_by("pk"),
    ]


def _post(of: Dispute | Refund, amount_nanousd: int, *, at: dt.datetime) -> None:
    """An open dispute freezes it. Of everything else it was booked as a loss."""
    is_dispute = isinstance(of, Dispute)
    is_open = of.status == Dispute.Status.OPEN
    name = "dispute" if is_dispute else "refund"
    prefix = f"{name}-late:{of.pk}:"
    earlier = LedgerTransaction.objects.filter(account_id=of.account_id, reference__startswith=prefix).count()
    moving.move(
        account_id=of.account_id,
        amount_nanousd=-amount_nanousd,
        reference=f"{prefix}{earlier}",
        kind=LedgerTransaction.Kind(name),
        description=f"{name.capitalize()} of top-up {of.topup_id}: credit that requests held",
        against=[
            Leg(LedgerAccount.Kind.DISPUTES if is_open else LedgerAccount.Kind.PLATFORM_LOSS, amount_nanousd)
        ],
        at=at,
        of=of,
    )
