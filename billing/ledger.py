"""Double entry: every movement of money is a transaction whose postings sum to zero, written once, never changed.

The database holds both rules too: see the triggers of migration `0002_ledger_triggers`.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import IntegrityError, transaction

from accounts.models import Account
from billing.models import LedgerAccount, LedgerTransaction, Posting

_FEWEST_LEGS = 2


class AlreadyPosted(Exception):
    """The reference stands in the ledger: what it names has happened, and must not happen again."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"{reference} is already in the ledger")
        self.reference = reference


@dataclass(frozen=True, slots=True)
class Leg:
    """One posting to be: positive credits the ledger account, negative debits it. In nano-USD, never zero.

    `owner_id` is the account whose customer credits these are; `provider` the payment provider of a cash clearing.
    """

    kind: LedgerAccount.Kind
    amount_nanousd: int
    owner_id: int | None = None
    provider: str = ""


def post(
    *,
    reference: str,
    kind: LedgerTransaction.Kind,
    account: Account | int,
    description: str,
    legs: Sequence[Leg],
    at: dt.datetime,
) -> LedgerTransaction:
    """Write one transaction with its postings; `account` is the customer it concerns.

    A ledger account that does not exist yet is made. Raises AlreadyPosted for a reference that was used before, and
    ValueError for legs that do not sum to zero, are fewer than two, or are zero themselves. Whatever changes a wallet
    locks it first, and posts in the same database transaction.
    """
    _refuse_unbalanced(legs)
    with transaction.atomic():
        try:
            with transaction.atomic():
                posted = LedgerTransaction.objects.create(
                    reference=reference,
                    kind=kind,
                    account_id=account.pk if isinstance(account, Account) else account,
                    description=description,
                    created_at=at,
                )
        except IntegrityError as error:
            raise AlreadyPosted(reference) from error
        # In one order everywhere, so that two transactions which both make the same accounts cannot deadlock.
        for leg in sorted(legs, key=lambda leg: (leg.kind, leg.owner_id or 0, leg.provider)):
            ledger_account, _ = LedgerAccount.objects.get_or_create(
                kind=leg.kind,
                account_id=leg.owner_id,  # type: ignore[misc]  # null is a value of it
                provider=leg.provider,
            )
            Posting.objects.create(
                transaction=posted, ledger_account=ledger_account, amount_nanousd=leg.amount_nanousd
            )
    return posted


def _refuse_unbalanced(legs: Sequence[Leg]) -> None:
    amounts = [leg.amount_nanousd for leg in legs]
    if len(amounts) < _FEWEST_LEGS or 0 in amounts or sum(amounts) != 0:
        msg = f"legs must be two or more amounts that are not zero and sum to zero, not {amounts}"
        raise ValueError(msg)
