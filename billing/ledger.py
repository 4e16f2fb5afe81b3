"""Double entry: every movement of money is a transaction whose postings sum to zero, written once, never changed.

The database holds these rules too: see the triggers of the migrations `ledger_triggers` and `ledger_chain`. All
postings of the installation go through one lock, so that each transaction can follow the one before: see
`billing.chain`.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q

from accounts.models import Account
from billing import chain
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
    locks it first, and posts in the same database transaction. Until that ends nobody else posts: it comes last.
    """
    _refuse_unbalanced(legs)
    account_id = account.pk if isinstance(account, Account) else account
    with transaction.atomic():
        # Read before the lock, which everybody who posts waits for; made, where that is needed, under it.
        known = _existing(legs)
        head = chain.lock_head()
        if LedgerTransaction.objects.filter(reference=reference).exists():
            raise AlreadyPosted(reference)
        number = head.count + 1
        entry_hash = chain.digest(
            previous_hash=head.hash,
            number=number,
            reference=reference,
            kind=kind.value,
            account_id=account_id,
            description=description,
            created_at=at,
            postings=[(leg.kind.value, leg.owner_id, leg.provider, leg.amount_nanousd) for leg in legs],
        )
        posted = LedgerTransaction.objects.create(
            number=number,
            reference=reference,
            kind=kind,
            account_id=account_id,
            description=description,
            created_at=at,
            previous_hash=head.hash,
            hash=entry_hash,
        )
        Posting.objects.bulk_create(
            Posting(
                transaction=posted,
                ledger_account=known.get(_identity(leg)) or _made(leg),
                amount_nanousd=leg.amount_nanousd,
            )
            for leg in legs
        )
        chain.advance(head, to_hash=entry_hash)
    return posted


_Identity = tuple[str, int | None, str]


def _identity(leg: Leg) -> _Identity:
    return leg.kind.value, leg.owner_id, leg.provider


def _existing(legs: Sequence[Leg]) -> dict[_Identity, LedgerAccount]:
    asked = {_identity(leg) for leg in legs}
    found = LedgerAccount.objects.filter(kind__in={leg.kind for leg in legs}).filter(
        Q(account_id__in={leg.owner_id for leg in legs if leg.owner_id is not None}) | Q(account_id=None)
    )
    by_identity = {(of.kind, of.account_id, of.provider): of for of in found}
    return {identity: of for identity, of in by_identity.items() if identity in asked}


def _made(leg: Leg) -> LedgerAccount:
    made, _ = LedgerAccount.objects.get_or_create(
        kind=leg.kind,
        account_id=leg.owner_id,  # type: ignore[misc]  # null is a value of it
        provider=leg.provider,
    )
    return made


def _refuse_unbalanced(legs: Sequence[Leg]) -> None:
    amounts = [leg.amount_nanousd for leg in legs]
    if len(amounts) < _FEWEST_LEGS or 0 in amounts or sum(amounts) != 0:
        msg = f"legs must be two or more amounts that are not zero and sum to zero, not {amounts}"
        raise ValueError(msg)
