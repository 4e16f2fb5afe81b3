"""Credit that moves for another reason than a purchase or usage: the wallet and the ledger together, or neither."""

import datetime as dt
from collections.abc import Sequence

from django.db import transaction

from billing import ledger, promotions, wallets
from billing.ledger import Leg
from billing.models import Dispute, LedgerAccount, LedgerTransaction, Refund
from billing.wallets import WalletState
from catalog.money import usd_text


class NotAvailable(Exception):
    """The account has less credit available than is to be taken. `available_nanousd` says how much."""

    def __init__(self, available_nanousd: int) -> None:
        super().__init__(f"Only {usd_text(available_nanousd)} of credit is available.")
        self.available_nanousd = available_nanousd


def lock(*, account_id: int) -> WalletState:
    """The account's wallet, locked until the transaction ends."""
    return wallets.lock(wallets.borrowed_connection(), [account_id])[account_id]


def move(
    *,
    account_id: int,
    amount_nanousd: int,
    reference: str,
    kind: LedgerTransaction.Kind,
    description: str,
    against: Sequence[Leg],
    at: dt.datetime,
    of: Dispute | Refund | None = None,
) -> LedgerTransaction:
    """Give the account's wallet the amount, or take it where it is negative, and post that `against` the other legs.

    Legs of zero are left out. What lots of promotional credit lose `of` a dispute or a refund is remembered, and
    restored where it gives back. Raises NotAvailable, and AlreadyPosted for a reference that was used before.
    """
    with transaction.atomic():
        wallet = lock(account_id=account_id)
        promotions.attribute(account_id=account_id, at=at)
        if -amount_nanousd > wallet.available_nanousd:
            # What is missing may be what this very act has taken before.
            if LedgerTransaction.objects.filter(reference=reference).exists():
                raise ledger.AlreadyPosted(reference)
            raise NotAvailable(wallet.available_nanousd)
        wallet.credit(amount_nanousd)
        wallets.write(wallets.borrowed_connection(), [wallet])
        own = Leg(LedgerAccount.Kind.CUSTOMER_CREDITS, amount_nanousd, owner_id=account_id)
        posted = ledger.post(
            reference=reference,
            kind=kind,
            account=account_id,
            description=description,
            legs=[leg for leg in (own, *against) if leg.amount_nanousd],
            at=at,
        )
        standing = promotions.attribute(account_id=account_id, at=at)
        if of is not None and amount_nanousd < 0:
            promotions.withhold(standing, of=of)
        elif of is not None and amount_nanousd > 0:
            promotions.restore(of=of, amount_nanousd=amount_nanousd)
    return posted
