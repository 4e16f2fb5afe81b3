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
        now = min(wanted, self.available)
        later = max(0, min(wanted - now, self.balance - now - self.to_take))
        back.credit += now
        back.to_take += later
        self.lose(back, now)

    def release(self, back: "Back", amount: int) -> None:
        """A part of what was taken is there again: the last lot to be spent first, and what was paid for last."""
        back.credit -= amount
        for lot in sorted(self.lots, key=lambda lot: lot.order, reverse=True):
            returned = min(back.from_lots.get(lot.id, 0), amount)
            if returned:
                back.from_lots[lot.id] -= returned
            lot.left += returned
            amount -= returned
        self.paid += amount

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
    # Of a dispute: what the bank wants, and when it said so.
    amount: int = 0
    told_at: dt.datetime | None = None
    # Of the loss, what requests hold; and of the credit, what each lot lost.
    to_take: int = 0
    from_lots: dict[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.credit + self.fee + self.loss

    def is_latest(self, told_at: dt.datetime) -> bool:
        return self.told_at is None or told_at >= self.told_at

    def is_overtaken(self, status: str, told_at: dt.datetime) -> bool:
        if status == self.status:
            return True
        return self.closed_at is not None and (status == "open" or told_at < self.closed_at)


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
        return self.kept(None)[0]

    @property
    def kept_fee(self) -> int:
        return self.kept(None)[1]

    def kept(self, but_for: Back | None) -> tuple[int, int]:
        """The credit and the fee that have not gone back otherwise."""
        gone = [back for back in self.gone if back is not but_for]
        credit = self.credit - sum(back.credit + back.loss for back in gone)
        return max(0, credit), max(0, self.fee - sum(back.fee for back in gone))

    def share(self, amount: int, but_for: Back | None = None) -> tuple[int, int]:
        """An amount of it as credit and fee."""
        kept_credit, kept_fee = self.kept(but_for)
        fee = min(to_cents(self.fee * amount, self.credit + self.fee), kept_fee)
        credit = min(amount - fee, kept_credit)
        return credit, min(amount - credit, kept_fee)

    def take(self, back: Back, amount: int, purse: Purse) -> None:
        """An amount of it as credit that is there, or will be, fee and loss."""
        credit, back.fee = self.share(amount)
        purse.take(back, credit)
        back.loss = amount - back.fee - back.credit

    def take_another(self, dispute: Back, amount: int, purse: Purse) -> None:
        """The bank wants another amount: what that is more is taken, what is less released; spent is spent."""
        credit, fee = self.share(amount, but_for=dispute)
        more = credit - dispute.credit - dispute.loss
        purse.release(dispute, max(0, dispute.credit - credit))
        dispute.to_take = min(dispute.to_take, credit - dispute.credit)
        if more > 0:
            purse.take(dispute, more)
        dispute.fee, dispute.loss = fee, amount - fee - dispute.credit

    def fee_of_refund(self, credit: int) -> int:
        """All refunds together give back the fee's share of what is gone, in whole cents."""
        gone = self.credit - self.kept_credit + credit
        due = to_cents(self.fee * gone, self.credit)
        return max(0, min(self.kept_fee, due - (self.fee - self.kept_fee)))

    def refund_changes(self, reference: str, status: str, purse: Purse) -> None:
        """The company says what became of a refund. What it has failed stays failed; what it refused may still come."""
        purse.collect()
        refund = self.refunds[reference]
        failed = refund.status == "failed"
        refused = failed and not refund.is_named
        refund.is_named = True
        if status == refund.status or (failed and not refused) or (status == "pending" and not refused):
            return
        if refused:
            wanted, refund.credit = refund.credit + refund.loss, 0
            purse.take(refund, wanted)
            refund.loss = wanted - refund.credit
        elif status == "failed":
            purse.undo(refund)
        refund.status = status
        purse.collect()

    def has_failed(self, reference: str, purse: Purse) -> None:
        """It was refused, or given up: what was taken of it is there again."""
        purse.collect()
        purse.undo(self.refunds[reference])
        self.refunds[reference].status = "failed"
        self.refunds[reference].is_named = False
        purse.collect()

    def is_refused(self, name: str, status: str, amount: int, told_at: dt.datetime) -> bool:
        """What is lost with one amount, and is now told of with another, is for a person."""
        dispute = self.disputes.get(name)
        return (
            dispute is not None
            and dispute.status == "lost"
            and dispute.is_overtaken(status, told_at)
            and dispute.is_latest(told_at)
            and amount != dispute.amount
        )

    def dispute_changes(
        self, name: str, status: str, amount: int, told_at: dt.datetime, purse: Purse
    ) -> None:
        """The bank wants an amount back, or has decided; the later decision counts, and the later amount."""
        purse.collect()
        dispute = self.disputes.get(name)
        overtaken = dispute is not None and dispute.is_overtaken(status, told_at)
        if dispute is None:
            dispute = self.disputes[name] = Back(
                0, 0, 0, "won", is_dispute=True, amount=amount, told_at=told_at
            )
            purse.backs.append(dispute)
        is_latest, is_won = dispute.is_latest(told_at), not overtaken and status == "won"
        if is_latest and not is_won:
            if dispute.status == "open" and amount != dispute.amount:
                self.take_another(dispute, amount, purse)
            dispute.amount = amount
        if is_won:
            purse.undo(dispute)
            dispute.credit = dispute.fee = dispute.loss = 0
        elif not overtaken and dispute.status == "won":
            self.take(dispute, dispute.amount, purse)
        if not overtaken:
            dispute.status = status
            dispute.closed_at = None if status == "open" else told_at
        if is_latest:
            dispute.amount, dispute.told_at = amount, told_at
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
