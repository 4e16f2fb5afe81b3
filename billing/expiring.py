"""Promotional credit that was not spent in time: the notice before, and the end of what is left."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse

from accounts import auditing, mailing
from accounts.models import Account
from billing import ledger, owed_mail, promotions, wallets
from billing.ledger import Leg
from billing.models import LedgerAccount, LedgerTransaction, PromotionalCredit
from billing.promotions import Lot
from billing.wallets import WalletState
from catalog.money import usd_string


@dataclass(frozen=True, slots=True)
class Notice:
    """Lots of an account that expire soon, and of which nobody was told before; the rows owe the e-mail."""

    account: Account
    lots: Sequence[Lot]
    rows: Sequence[PromotionalCredit]


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


def notice(*, at: dt.datetime) -> int:
    """Have the lots owe an e-mail that expire within PROMOTION_NOTICE_DAYS, each once. Returns how many there were."""
    accounts = _expiring_soon(at).order_by("account_id").values_list("account_id", flat=True).distinct()
    return sum(_notice_of(account_id, at=at) for account_id in accounts)


def _expiring_soon(at: dt.datetime) -> QuerySet[PromotionalCredit]:
    until = at + dt.timedelta(days=settings.PROMOTION_NOTICE_DAYS)
    return PromotionalCredit.objects.filter(
        closed_at=None, noticed_at=None, expires_at__gt=at, expires_at__lte=until
    )


def _notice_of(account_id: int, *, at: dt.datetime) -> int:
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [account_id])
        # Looked at first: a lot that was spent meanwhile closes, and nobody is told of it.
        promotions.attribute(account_id=account_id, at=at)
        mine = _expiring_soon(at).filter(account_id=account_id)
        return mine.update(noticed_at=at, mail_due_at=at)


def claim_notice(*, at: dt.datetime) -> Notice | None:
    """Lease what one account is owed an e-mail about; None: there is none. What is left of it is as of now."""
    owed = PromotionalCredit.objects.select_related("account").filter(noticed_at__isnull=False)
    first = owed_mail.claim(rows=owed, at=at)
    if first is None:
        return None
    rows, of_account = [first], owed.filter(account_id=first.account_id)
    while another := owed_mail.claim(rows=of_account, at=at):
        rows.append(another)
    left = promotions.standing(account_id=first.account_id).unspent_lots
    ids = {row.pk for row in rows}
    lots = [lot for lot in left if lot.id in ids and lot.expires_at is not None and lot.expires_at > at]
    return Notice(first.account, lots, rows)


def mark_sent(*, notice: Notice) -> None:
    """The e-mail is out."""
    for row in notice.rows:
        owed_mail.mark_sent(rows=PromotionalCredit.objects.all(), row=row)


def mail_notice(*, notice: Notice) -> None:
    """Say what expires when; nothing where nothing is left. Raises mailing.SendingErrors."""
    if not notice.lots:
        return
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
