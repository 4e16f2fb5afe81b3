"""Money into a wallet: the wallet and the ledger change in one transaction, or neither does."""

import datetime as dt

from django.db import transaction

from accounts import auditing
from accounts.models import Account, User
from billing import collecting, ledger, promotions, wallets
from billing.ledger import Leg
from billing.models import LedgerAccount, LedgerTransaction, TopUp
from catalog.money import usd_string, usd_text


class WalletFull(Exception):
    """The wallet would hold more than a wallet may; the message says how much it can still take."""


def grant(
    *,
    account: Account,
    amount_nanousd: int,
    reason: str,
    actor: User | None,
    at: dt.datetime,
    reference: str,
    expires_at: dt.datetime | None = None,
) -> LedgerTransaction:
    """Give the account credit that nobody paid for, with a reason that its owner reads in the ledger.

    What is not spent by `expires_at` is taken back. The plan stays: only a paid top-up moves it. Raises ValueError for
    an amount that is not positive or a date that has passed, WalletFull, and AlreadyPosted for a reference that was
    used before.
    """
    if amount_nanousd <= 0:
        msg = f"a grant must be positive, not {amount_nanousd} nano-USD"
        raise ValueError(msg)
    if expires_at is not None and expires_at <= at:
        msg = f"credit granted at {at} cannot expire at {expires_at}"
        raise ValueError(msg)
    with transaction.atomic():
        _add_to_wallet(account_id=account.pk, amount_nanousd=amount_nanousd, at=at)
        posted = ledger.post(
            reference=reference,
            kind=LedgerTransaction.Kind.PROMOTION,
            account=account,
            description=reason,
            legs=[
                Leg(LedgerAccount.Kind.PROMOTIONS, -amount_nanousd),
                Leg(LedgerAccount.Kind.CUSTOMER_CREDITS, amount_nanousd, owner_id=account.pk),
            ],
            at=at,
        )
        promotions.open_lot(
            posted=posted, amount_nanousd=amount_nanousd, expires_at=expires_at, actor=actor, at=at
        )
        auditing.record(
            account=account,
            actor=actor,
            action="credit.granted",
            subject_type="account",
            subject_id=account.pk,
            amount_usd=usd_string(amount_nanousd),
            reason=reason,
            **({"expires_at": expires_at.isoformat()} if expires_at else {}),
        )
    return posted


def credit_topup(*, topup: TopUp, at: dt.datetime) -> LedgerTransaction:
    """Credit what the top-up bought, and book its payment and its fee.

    Raises WalletFull, and AlreadyPosted where that has happened. Who calls it has locked the top-up's wallet before the
    top-up.
    """
    with transaction.atomic():
        _add_to_wallet(account_id=topup.account_id, amount_nanousd=topup.credit_nanousd, at=at)
        return ledger.post(
            reference=f"topup:{topup.pk}",
            kind=LedgerTransaction.Kind.TOPUP,
            account=topup.account_id,
            description=f"Top-up {topup.pk}",
            legs=legs_of(topup),
            at=at,
        )


def legs_of(topup: TopUp) -> list[Leg]:
    """What the ledger says of a paid top-up: what was paid, what it bought, and the fee if there is one."""
    legs = [
        Leg(LedgerAccount.Kind.CASH_CLEARING, -topup.total_nanousd, provider=topup.provider),
        Leg(LedgerAccount.Kind.CUSTOMER_CREDITS, topup.credit_nanousd, owner_id=topup.account_id),
    ]
    if topup.fee_nanousd:
        legs.append(Leg(LedgerAccount.Kind.FEE_REVENUE, topup.fee_nanousd))
    return legs


def refuse_overfull(*, balance_nanousd: int, amount_nanousd: int) -> None:
    """Raise WalletFull where a wallet of that balance has no room for the amount."""
    room = wallets.MOST_NANOUSD - balance_nanousd
    if amount_nanousd > room:
        most, left = usd_text(wallets.MOST_NANOUSD), usd_text(max(0, room))
        msg = f"A wallet holds at most {most}; this one has room for {left} more."
        raise WalletFull(msg)


def _add_to_wallet(*, account_id: int, amount_nanousd: int, at: dt.datetime) -> None:
    connection = wallets.borrowed_connection()
    # What was spent is not waited for, so that nothing of this is taken for it.
    collecting.collect(account_id=account_id, at=at)
    locked = wallets.lock(connection, [account_id])
    promotions.attribute(account_id=account_id, at=at)
    refuse_overfull(balance_nanousd=locked[account_id].balance_nanousd, amount_nanousd=amount_nanousd)
    locked[account_id].credit(amount_nanousd)
    wallets.write(connection, locked.values())
