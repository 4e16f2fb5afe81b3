"""What of a top-up's payment is still ours: neither given back nor taken back by a bank."""

from dataclasses import dataclass
from decimal import Decimal

from billing.models import Dispute, Refund, TopUp
from catalog.money import whole_cents


@dataclass(frozen=True, slots=True)
class Kept:
    """Of a payment, in nano-USD: the credit and the fee that have not gone back."""

    credit_nanousd: int
    fee_nanousd: int


@dataclass(frozen=True, slots=True)
class Share:
    """An amount of a payment, in nano-USD, as what it bought; `beyond` is more than was kept of either."""

    credit_nanousd: int
    fee_nanousd: int
    beyond_nanousd: int


def of(*, topup: TopUp, but_for: Dispute | None = None) -> Kept:
    """What is kept of the payment. Refunds on their way and open disputes count as gone: nobody may give them twice.

    `but_for`: as if this dispute were not there. Exact under the lock of the account's wallet, for a top-up without
    refunds and disputes that were fetched before it.
    """
    gone_credit = gone_fee = 0
    for refund in topup.refunds.all():
        if refund.status != Refund.Status.FAILED:
            gone_credit += refund.credit_nanousd + refund.loss_nanousd
            gone_fee += refund.fee_nanousd
    for dispute in topup.disputes.all():
        if dispute.status != Dispute.Status.WON and dispute != but_for:
            gone_credit += dispute.frozen_nanousd + dispute.loss_nanousd
            gone_fee += dispute.fee_nanousd
    # What went back beyond all credit was a loss of the platform's, not of this payment's fee.
    return Kept(max(0, topup.credit_nanousd - gone_credit), max(0, topup.fee_nanousd - gone_fee))


def share(*, topup: TopUp, amount_nanousd: int, but_for: Dispute | None = None) -> Share:
    """Divide an amount of the payment between credit and fee as they were paid, as far as they are kept: see `of`."""
    left = of(topup=topup, but_for=but_for)
    of_fee = whole_cents(Decimal(topup.fee_nanousd) * amount_nanousd / topup.total_nanousd)
    fee = min(of_fee, left.fee_nanousd)
    credit = min(amount_nanousd - fee, left.credit_nanousd)
    # Where one of the two is used up, the rest is of the other.
    fee = min(amount_nanousd - credit, left.fee_nanousd)
    return Share(credit, fee, amount_nanousd - credit - fee)
