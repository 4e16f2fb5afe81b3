"""Credit that the operator takes: an adjustment down, with a reason that the account's members read in their ledger."""

import datetime as dt

from django.db import transaction

from accounts import auditing
from accounts.models import Account, User
from billing import collecting, moving, promotions
from billing.ledger import Leg
from billing.models import LedgerAccount, LedgerTransaction
from catalog.money import usd_string


def take(
    *, account: Account, amount_nanousd: int, reason: str, actor: User, at: dt.datetime, reference: str
) -> LedgerTransaction:
    """Take credit out of the account's wallet; only what is available, never what running requests hold.

    Granted credit goes before paid credit. Only what undoes a grant makes promotions cheaper; paid credit that is taken
    is earned by an adjustment. Nobody is paid anything: for that there are refunds. Raises ValueError for an amount
    that is not positive, moving.NotAvailable, and AlreadyPosted for a reference that was used before.
    """
    if amount_nanousd <= 0:
        msg = f"what is taken must be positive, not {amount_nanousd} nano-USD"
        raise ValueError(msg)
    with transaction.atomic():
        moving.lock(account_id=account.pk)
        collecting.collect(account_id=account.pk, at=at)
        promotions.attribute(account_id=account.pk, at=at)
        granted_nanousd = promotions.take_back(account_id=account.pk, amount_nanousd=amount_nanousd, at=at)
        posted = moving.move(
            account_id=account.pk,
            amount_nanousd=-amount_nanousd,
            reference=reference,
            kind=LedgerTransaction.Kind.ADJUSTMENT,
            description=reason,
            against=[
                Leg(LedgerAccount.Kind.PROMOTIONS, granted_nanousd),
                Leg(LedgerAccount.Kind.ADJUSTMENTS, amount_nanousd - granted_nanousd),
            ],
            at=at,
        )
        auditing.record(
            account=account,
            actor=actor,
            action="credit.taken",
            subject_type="account",
            subject_id=account.pk,
            amount_usd=usd_string(amount_nanousd),
            reason=reason,
        )
    return posted
