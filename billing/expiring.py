"""Promotional credit that was not spent in time: the notice before, and the end of what is left."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from accounts import auditing, mailing
from accounts.models import Account
from billing import ledger, promotions, wallets
from billing.ledger import Leg
from billing.models import LedgerAccount, LedgerTransaction, PromotionalCredit
from billing.promotions import Lot
from billing.wallets import WalletState
from catalog.money import usd_string


@dataclass(frozen=True, slots=True)
class Notice:
    """Lots of an account that expire soon, and of which nobody was told before."""

    account: Account
    lots: Sequence[Lot]


def expire_due(*, at: dt.datetime) -> int:
    """Take back what is left of the lots whose date has come; returns how much, in nano-USD.

    As far as it is available: what running requests hold is looked at again by the next run. One transaction for each
    account, so that a kill loses nothing, and under the wallet's lock, so that what is being spent is not taken back.
    """
    due = PromotionalCredit.objects.filter(closed_at=None, expires_at__lte=at)
    accounts = due.order_by("account_id").values_list("account_id", flat=True).distinct()
    return sum(_expire_of(account_id=account_id, at=at) for account_id in accounts)


def _expire_of(*, account_id: int, at: dt.datetime) -> int:
    with transaction.atomic():
        connection = wallets.borrowed_connection()
        wallet = wallets.lock(connection, [account_id])[account_id]
        before = wallet.balance_nanousd
        standing = promotions.attribute(account_id=account_id, at=at)
        for lot in standing.unspent_lots:
            if lot.expires_at is not None and lot.expires_at <= at:
                _expire(lot, wallet, at=at)
        wallets.write(connection, [wallet])
    return before - wallet.balance_nanousd


def _expire(lot: Lot, wallet: WalletState, *, at: dt.datetime) -> None:
    taken = wallet.charge(lot.left_nanousd)
    if not taken:
        return
    rest = lot.left_nanousd - taken
    credit = PromotionalCredit.objects.get(pk=lot.id)
    credit.remaining_nanousd, credit.closed_at = rest, None if rest else at
    credit.expired_nanousd += taken
    credit.save(update_fields=["remaining_nanousd", "expired_nanousd", "closed_at"])
    prefix = f"expiry:{lot.id}:"
    earlier = LedgerTransaction.objects.filter(
        account_id=wallet.account_id, reference__startswith=prefix
    ).count()
    ledger.post(
        reference=f"{prefix}{earlier}",
        kind=LedgerTransaction.Kind.EXPIRY,
        account=wallet.account_id,
        description=lot.reason,
        legs=[
            Leg(LedgerAccount.Kind.CUSTOMER_CREDITS, -taken, owner_id=wallet.account_id),
            Leg(LedgerAccount.Kind.PROMOTIONS, taken),
        ],
        at=at,
    )
    auditing.record(
        account=wallet.account_id,
        actor=None,
        action="credit.expired",
        subject_type="promotional_credit",
        subject_id=lot.id,
        amount_usd=usd_string(taken),
        reason=lot.reason,
    )


def claim_notices(*, at: dt.datetime) -> list[Notice]:
    """Mark the lots that expire within PROMOTION_NOTICE_DAYS as told of, and return what to tell, by account.

    Whoever gets a lot here is the only one who does. `give_back` what could not be sent.
    """
    soon = PromotionalCredit.objects.filter(
        closed_at=None,
        noticed_at=None,
        expires_at__gt=at,
        expires_at__lte=at + dt.timedelta(days=settings.PROMOTION_NOTICE_DAYS),
    )
    accounts = Account.objects.filter(pk__in=soon.values("account_id")).order_by("pk")
    claimed = [Notice(account, _claim_of(account.pk, at=at)) for account in accounts]
    return [notice for notice in claimed if notice.lots]


def _claim_of(account_id: int, *, at: dt.datetime) -> list[Lot]:
    until = at + dt.timedelta(days=settings.PROMOTION_NOTICE_DAYS)
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [account_id])
        # Looked at first: a lot that was spent meanwhile closes, and nobody is told of it.
        lots = {lot.id: lot for lot in promotions.attribute(account_id=account_id, at=at).unspent_lots}
        mine = PromotionalCredit.objects.filter(
            pk__in=lots, noticed_at=None, expires_at__gt=at, expires_at__lte=until
        )
        ids = list(mine.order_by("expires_at", "pk").values_list("pk", flat=True))
        mine.update(noticed_at=at)
    return [lots[lot_id] for lot_id in ids]


def give_back(*, notice: Notice) -> None:
    """Nobody could be told; the next run tries again."""
    PromotionalCredit.objects.filter(pk__in=[lot.id for lot in notice.lots]).update(noticed_at=None)


def mail_notice(*, notice: Notice) -> None:
    """Say what expires when. Raises mailing.SendingErrors."""
    total_nanousd = sum(lot.left_nanousd for lot in notice.lots)
    mailing.send(
        subject="Some of your credit expires soon",
        template="billing/mail/expiring.txt",
        context={
            "account": notice.account,
            "lots": notice.lots,
            "total_nanousd": total_nanousd,
            "billing_url": mailing.public_url(reverse("billing:home")),
        },
        to=mailing.recipients(account=notice.account),
    )
