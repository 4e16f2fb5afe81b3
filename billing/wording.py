"""Ledger transactions in the words of the customer whose credit they move."""

import datetime as dt
import re
from dataclasses import dataclass

from billing.models import LedgerTransaction

Kind = LedgerTransaction.Kind
# What moves a customer's credit, as the filter of their ledger names it.
KINDS = (
    (Kind.TOPUP.value, "Bought credit"),
    (Kind.USAGE.value, "Usage"),
    (Kind.PROMOTION.value, "Granted credit"),
    (Kind.EXPIRY.value, "Expired credit"),
    (Kind.REFUND.value, "Refunds"),
    (Kind.DISPUTE.value, "Disputes"),
    (Kind.ADJUSTMENT.value, "Corrections"),
)
_BY_KIND: dict[str, str] = {
    Kind.TOPUP: "Credit bought",
    Kind.PROMOTION: "Credit granted: {description}",
    Kind.EXPIRY: "Granted credit expired: {description}",
    Kind.REFUND: "Refund: credit that is paid back to you",
    Kind.DISPUTE: "Dispute: the bank questions a payment, and its credit is frozen until that is decided",
    Kind.ADJUSTMENT: "Correction: {description}",
}
# How it went on, told apart by what the reference begins with.
_LATER = {
    "refund-failed": "Refund that did not go through: the credit is yours again",
    "refund-late": "Refund: the rest of its credit, which requests had held",
    "dispute-late": "Dispute: more of the payment's credit, which requests had held",
    "dispute-changed": "Dispute: the bank disputes another amount than before, and so much more or less is frozen",
    "dispute-lost": "Dispute decided against the payment: its frozen credit is gone",
    "dispute-won": "Dispute decided for the payment: the credit is yours again",
}
_TOPUP = re.compile(r"\btop-up (\d+)\b", re.IGNORECASE)
_ABOUT_A_PAYMENT = {Kind.TOPUP, Kind.REFUND, Kind.DISPUTE}


@dataclass(frozen=True, slots=True)
class Words:
    """What happened; the payment it is about, if it is about one; and the hour whose requests it pays."""

    text: str
    topup_id: int | None = None
    hour: dt.datetime | None = None


def in_words(*, kind: str, reference: str, description: str) -> Words:
    """A transaction as its customer reads it. Usage says its hour in its description."""
    text = _LATER.get(reference.partition(":")[0]) or _BY_KIND.get(kind, "{description}")
    return Words(
        text.format(description=description),
        topup_id=_topup_id(description) if kind in _ABOUT_A_PAYMENT else None,
        hour=_hour(reference) if kind == Kind.USAGE else None,
    )


def _topup_id(description: str) -> int | None:
    """The ledger names a payment in the description only. It cannot change any more, so it can be read."""
    found = _TOPUP.search(description)
    return int(found[1]) if found else None


def _hour(reference: str) -> dt.datetime | None:
    """`usage:<account>:<hour>:<n>`, as `usage.posting` writes it."""
    try:
        return dt.datetime.strptime(reference.split(":")[2], "%Y-%m-%dT%H").replace(tzinfo=dt.UTC)
    except (IndexError, ValueError):
        return None
