"""Which credit is promotional: what is left of each lot, as it follows from the books.

The teller knows the balance alone. What was ever charged is the sum of the postings to the customer's credits that are
not usage, less the balance. What has been charged since the last look is taken from the lots, the soonest to expire
first, then those without a date, then from paid credit. What the operator takes back comes out of the lots first, the
last granted first, for it undoes a grant. What goes away otherwise (a refund, a dispute) takes paid credit first: lots
lose only what the balance cannot carry any more, and get it again if the refund fails or the dispute is won.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import F

from accounts.models import User
from billing.models import Dispute, LedgerTransaction, PromotionalCredit, Refund, Wallet, WithheldCredit

# One statement, hence one snapshot: wallet and ledger change together.
_STANDING = """
    SELECT w.balance_nanousd, w.held_nanousd, w.attributed_nanousd,
        coalesce((SELECT sum(p.amount_nanousd) FROM billing_ledgeraccount l
            JOIN billing_posting p ON p.ledger_account_id = l.id
            JOIN billing_ledgertransaction t ON t.id = p.transaction_id
            WHERE l.kind = 'customer_credits' AND l.account_id = w.account_id AND t.kind <> 'usage'), 0)::bigint,
        lots.ids, lots.remaining, lots.expiring, lots.reasons
    FROM billing_wallet w
    CROSS JOIN LATERAL (
        SELECT array_agg(id ORDER BY expires_at, id) AS ids,
            array_agg(remaining_nanousd ORDER BY expires_at, id) AS remaining,
            array_agg(expires_at ORDER BY expires_at, id) AS expiring,
            array_agg(reason ORDER BY expires_at, id) AS reasons
        FROM billing_promotionalcredit WHERE account_id = w.account_id AND closed_at IS NULL
    ) AS lots
    WHERE w.account_id = %s
"""


@dataclass(frozen=True, slots=True)
class Lot:
    """What is left of one promotional credit, and what was left at the last look. In nano-USD."""

    id: int
    left_nanousd: int
    was_nanousd: int
    expires_at: dt.datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """An account's credit at one moment, split by where it came from. In nano-USD; `lots` in the order of spending."""

    balance_nanousd: int
    held_nanousd: int
    charged_nanousd: int
    lots: Sequence[Lot] = ()

    @property
    def promotional_nanousd(self) -> int:
        return sum(lot.left_nanousd for lot in self.lots)

    @property
    def paid_nanousd(self) -> int:
        return self.balance_nanousd - self.promotional_nanousd

    @property
    def paid_available_nanousd(self) -> int:
        """Paid credit that no running request needs: what could be given back to whoever paid."""
        return min(self.paid_nanousd, self.balance_nanousd - self.held_nanousd)

    @property
    def unspent_lots(self) -> list[Lot]:
        return [lot for lot in self.lots if lot.left_nanousd]


def standing(*, account_id: int) -> Standing:
    """What is left of the account's credit now, by lot. Reads only, and locks nothing."""
    with connection.cursor() as cursor:
        cursor.execute(_STANDING, [account_id])
        row = cursor.fetchone()
    if row is None:
        return Standing(balance_nanousd=0, held_nanousd=0, charged_nanousd=0)
    balance, held, attributed, funded, ids, remaining, expiring, reasons = row
    left = spend(remaining or [], charged_nanousd=funded - balance - attributed, balance_nanousd=balance)
    return Standing(
        balance_nanousd=balance,
        held_nanousd=held,
        charged_nanousd=funded - balance,
        lots=[Lot(*lot) for lot in zip(ids, left, remaining, expiring, reasons, strict=True)] if ids else [],
    )


def spend(lots: Sequence[int], *, charged_nanousd: int, balance_nanousd: int) -> list[int]:
    """What is left of lots, in the order of spending, after a charge that has led to the balance. In nano-USD."""
    to_take = max(charged_nanousd, sum(lots) - balance_nanousd)
    left = []
    for lot in lots:
        taken = min(lot, to_take)
        to_take -= taken
        left.append(lot - taken)
    return left


def attribute(*, account_id: int, at: dt.datetime) -> Standing:
    """Bring the account's lots up to date, and say how its credit stands.

    Who calls it has locked the account's wallet, and stands before or after a whole act: never where the wallet has
    changed and the ledger has not. Whatever moves credit other than usage calls it before; what takes credit away
    calls it again afterwards.
    """
    now = standing(account_id=account_id)
    for lot in now.lots:
        if lot.left_nanousd != lot.was_nanousd:
            PromotionalCredit.objects.filter(pk=lot.id).update(
                remaining_nanousd=lot.left_nanousd, closed_at=None if lot.left_nanousd else at
            )
    Wallet.objects.filter(account_id=account_id).exclude(attributed_nanousd=now.charged_nanousd).update(
        attributed_nanousd=now.charged_nanousd
    )
    return now


def take_back(*, account_id: int, amount_nanousd: int, at: dt.datetime) -> int:
    """Let the lots lose what the operator takes, the last granted first; what they do not carry is paid credit.

    Returns what the lots have lost. Under the wallet's lock, in the transaction that takes it, after `attribute`.
    """
    rest = amount_nanousd
    for lot in PromotionalCredit.objects.filter(account_id=account_id, closed_at=None).order_by("-id"):
        taken = min(lot.remaining_nanousd, rest)
        if not taken:
            break
        rest -= taken
        lot.remaining_nanousd -= taken
        lot.closed_at = None if lot.remaining_nanousd else at
        lot.save(update_fields=["remaining_nanousd", "closed_at"])
    return amount_nanousd - rest


def withhold(standing: Standing, *, of: Dispute | Refund) -> None:
    """Remember what the lots have just lost to a dispute or a refund: `standing` is what `attribute` said after it."""
    WithheldCredit.objects.bulk_create(
        WithheldCredit(lot_id=lot.id, amount_nanousd=lot.was_nanousd - lot.left_nanousd, **_of(of))
        for lot in standing.lots
        if lot.left_nanousd != lot.was_nanousd
    )


def restore(*, of: Dispute | Refund, amount_nanousd: int) -> None:
    """Give the lots what they lost to a dispute or a refund that gives back so much, after the wallet has it again.

    Paid credit went first, so it comes last; and of the lots, the last to be spent is the first to have it again. A lot
    whose date has come meanwhile expires by the next run.
    """
    withheld = WithheldCredit.objects.filter(**_of(of))
    for part in withheld.order_by(F("lot__expires_at").desc(nulls_first=True), "-lot_id", "-pk"):
        back = min(part.amount_nanousd, amount_nanousd)
        if not back:
            break
        amount_nanousd -= back
        PromotionalCredit.objects.filter(pk=part.lot_id).update(
            remaining_nanousd=F("remaining_nanousd") + back, closed_at=None
        )
        if back == part.amount_nanousd:
            part.delete()
        else:
            part.amount_nanousd -= back
            part.save(update_fields=["amount_nanousd"])


def _of(of: Dispute | Refund) -> dict[str, Dispute | Refund]:
    return {"dispute" if isinstance(of, Dispute) else "refund": of}


def paid_available_nanousd(*, account_id: int, at: dt.datetime) -> int:
    """What of the account's available credit was paid for: the most that can be refunded, in nano-USD.

    Under the wallet's lock, like `attribute`.
    """
    return attribute(account_id=account_id, at=at).paid_available_nanousd


def open_lot(
    *,
    posted: LedgerTransaction,
    amount_nanousd: int,
    expires_at: dt.datetime | None,
    actor: User | None,
    at: dt.datetime,
) -> PromotionalCredit:
    """Keep a grant that was just posted as a lot of its own; the lots were looked at before it."""
    return PromotionalCredit.objects.create(
        account_id=posted.account_id,
        transaction=posted,
        amount_nanousd=amount_nanousd,
        remaining_nanousd=amount_nanousd,
        expires_at=expires_at,
        reason=posted.description,
        granted_by=actor,
        granted_at=at,
        charged_before_nanousd=Wallet.objects.get(account_id=posted.account_id).attributed_nanousd,
    )
