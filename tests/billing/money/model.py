"""What must be left, in plain Python: a purse and its lots, payments and what went back of them. In nano-USD.

Written from docs/money.md and not from the code: nothing of billing is imported here.
"""

import datetime as dt
from dataclasses import dataclass, field

CENT = 10**7
USD = 100 * CENT


def to_cents(numerator: int, denominator: int) -> int:
    """A fraction of nano-USD as a whole number of cents, half up."""
    return (2 * numerator + denominator * CENT) // (2 * denominator * CENT) * CENT


def bought_with(cents: int) -> tuple[int, int]:
    """What a payment that fits nothing buys at a fee of 25 %: as much credit as it can, and the rest is the fee."""
    credit = next(c for c in range(cents, 0, -1) if c * CENT + to_cents(c * CENT, 4) <= cents * CENT)
    return credit * CENT, (cents - credit) * CENT


@dataclass
class Lot:
    """A grant, and what is left of it."""

    id: int
    left: int
    expires_at: dt.datetime | None

    @property
    def order(self) -> tuple[bool, dt.datetime | None, int]:
        return (self.expires_at is None, self.expires_at, self.id)


@dataclass
class Purse:
    """Credit by where it came from, and what running requests hold of it."""

    paid: int = 0
    lots: list[Lot] = field(default_factory=list)
    held: int = 0
    # Everything that may take credit of it, in the order in which it came.
    backs: list["Back"] = field(default_factory=list)

    @property
    def to_take(self) -> int:
        """What disputes and refunds wait for until requests leave it."""
        return sum(back.to_take for back in self.backs)

    @property
    def balance(self) -> int:
        return self.paid + sum(lot.left for lot in self.lots)

    @property
    def available(self) -> int:
        return max(0, self.balance - self.held - self.to_take)

    def spend(self, amount: int) -> None:
        """Lots first, the soonest to expire before the others."""
        for lot in sorted(self.lots, key=lambda lot: lot.order):
            taken = min(lot.left, amount)
            lot.left -= taken
            amount -= taken
        self.paid -= amount

    def settle(self, held: int, cost: int) -> int:
        """What a request leaves of its hold is free; it pays with that first, and then only with what is available."""
        self.held -= held
        spent = min(cost, max(held, self.available))
        self.spend(spent)
        return spent

    def lose(self, back: "Back", amount: int) -> None:
        """Taken away otherwise: what was paid for goes first. What lots lose is remembered."""
        from_paid = min(amount, self.paid)
        self.paid -= from_paid
        before = {lot.id: lot.left for lot in self.lots}
        self.spend(amount - from_paid)
        for lot in self.lots:
            back.from_lots[lot.id] = back.from_lots.get(lot.id, 0) + before[lot.id] - lot.left

    def undo(self, back: "Back") -> None:
        """All that was taken is there again, and every lot has what it lost."""
        self.paid += back.credit - sum(back.from_lots.values())
        for lot in self.lots:
            lot.left += back.from_lots.get(lot.id, 0)
        back.from_lots.clear()
        back.to_take = 0

    def take(self, back: "Back", wanted: int) -> None:
        """What is available now; and what requests hold, and nothing else waits for, when they leave it."""
        back.credit = min(wanted, self.available)
        back.to_take = max(0, min(wanted - back.credit, self.balance - back.credit - self.to_take))
        back.loss = wanted - back.credit
        self.lose(back, back.credit)

    def collect(self) -> None:
        """Whatever waits takes what requests have left: disputes first. What they have used is not waited for."""
        there, held = self.balance - self.held, self.held
        for back in sorted(self.backs, key=lambda back: not back.is_dispute):
            taken = min(back.to_take, there)
            back.to_take = min(back.to_take - taken, held)
            there, held = there - taken, held - back.to_take
            back.credit += taken
            back.loss -= taken
            self.lose(back, taken)

    def give_back(self, amount: int) -> int:
        """Taken by the operator: the last grant goes first, then what was paid for. How much was granted."""
        rest = amount
        for lot in sorted(self.lots, key=lambda lot: -lot.id):
            taken = min(lot.left, rest)
            lot.left -= taken
            rest -= taken
        self.paid -= rest
        return amount - rest

    def expire(self, at: dt.datetime) -> int:
        """What is left of the lots whose date has come, as far as nothing holds it."""
        expired = 0
        for lot in sorted(self.lots, key=lambda lot: lot.order):
            if lot.expires_at is not None and lot.expires_at <= at:
                taken = min(lot.left, self.available)
                lot.left -= taken
                expired += taken
        return expired


@dataclass
class Back:
    """Money of a payment that went back, or is frozen: a refund or a dispute."""

    credit: int
    fee: int
    loss: int
    status: str
    # Of a refund: when it was asked for (None: at the company's own dashboard), and whether the company has said its
    # own name for it. Of a dispute: when it was decided.
    asked_at: dt.datetime | None = None
    is_named: bool = False
    closed_at: dt.datetime | None = None
    is_dispute: bool = False
    # Of the loss, what requests hold; and of the credit, what each lot lost.
    to_take: int = 0
    from_lots: dict[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.credit + self.fee + self.loss


@dataclass
class Payment:
    """A top-up that was paid, with its refunds by reference and its disputes by name."""

    id: int
    reference: str
    credit: int
    fee: int
    refunds: dict[str, Back] = field(default_factory=dict)
    disputes: dict[str, Back] = field(default_factory=dict)

    @property
    def payment(self) -> str:
        return f"pay-{self.reference}"

    @property
    def gone(self) -> list[Back]:
        refunds = [refund for refund in self.refunds.values() if refund.status != "failed"]
        return refunds + [dispute for dispute in self.disputes.values() if dispute.status != "won"]

    @property
    def kept_credit(self) -> int:
        return max(0, self.credit - sum(back.credit + back.loss for back in self.gone))

    @property
    def kept_fee(self) -> int:
        return max(0, self.fee - sum(back.fee for back in self.gone))

    def take(self, back: Back, amount: int, purse: Purse) -> None:
        """An amount of it as credit that is there, or will be, fee and loss."""
        fee = min(to_cents(self.fee * amount, self.credit + self.fee), self.kept_fee)
        credit = min(amount - fee, self.kept_credit)
        fee = min(amount - credit, self.kept_fee)
        purse.take(back, credit)
        back.fee = fee
        back.loss += amount - fee - credit

    def fee_of_refund(self, credit: int) -> int:
        """All refunds together give back the fee's share of what is gone, in whole cents."""
        gone = self.credit - self.kept_credit + credit
        due = to_cents(self.fee * gone, self.credit)
        return max(0, min(self.kept_fee, due - (self.fee - self.kept_fee)))

    def refund_changes(self, reference: str, status: str, purse: Purse) -> None:
        """The company says what became of a refund. What it has failed stays failed; what it refused may still come."""
        refund = self.refunds[reference]
        failed = refund.status == "failed"
        refused = failed and not refund.is_named
        refund.is_named = True
        if status == refund.status or (failed and not refused) or (status == "pending" and not refused):
            return
        if refused:
            purse.take(refund, refund.credit + refund.loss)
        elif status == "failed":
            purse.undo(refund)
        refund.status = status

    def dispute_changes(
        self, name: str, status: str, amount: int, decided_at: dt.datetime, purse: Purse
    ) -> None:
        """The bank wants an amount back, or has decided; the later decision counts."""
        purse.collect()
        dispute = self.disputes.get(name)
        if dispute is None:
            dispute = self.disputes[name] = Back(0, 0, 0, "won", is_dispute=True)
            purse.backs.append(dispute)
        elif status == dispute.status or (
            dispute.closed_at is not None and (status == "open" or decided_at < dispute.closed_at)
        ):
            return
        if status == "won":
            purse.undo(dispute)
            dispute.credit = dispute.fee = dispute.loss = 0
        elif dispute.status == "won":
            self.take(dispute, amount, purse)
        dispute.status = status
        dispute.closed_at = None if status == "open" else decided_at
        purse.collect()


@dataclass
class Platform:
    """What the platform's own ledger accounts hold besides payments."""

    granted: int = 0
    # By adjustments: of what was granted, and of what was paid for.
    taken_back: int = 0
    taken: int = 0
    expired: int = 0
    lost_on_usage: int = 0

    def sums(self, payments: list[Payment]) -> dict[str, int]:
        refunds = [
            back for payment in payments for back in payment.refunds.values() if back.status != "failed"
        ]
        disputes = [back for payment in payments for back in payment.disputes.values()]
        lost = refunds + [dispute for dispute in disputes if dispute.status == "lost"]
        return {
            "cash_clearing": sum(back.total for back in lost)
            - sum(payment.credit + payment.fee for payment in payments),
            "fee_revenue": sum(payment.fee for payment in payments),
            "refunds": -sum(back.fee for back in lost),
            "disputes": sum(dispute.credit for dispute in disputes if dispute.status == "open"),
            "platform_loss": -sum(back.loss for back in lost) - self.lost_on_usage,
            "promotions": self.taken_back + self.expired - self.granted,
            "adjustments": self.taken,
        }
