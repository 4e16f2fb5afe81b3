"""What Tollgate asks of a payment company, and what one may report: the one interface behind buying credit.

Amounts are cents of USD, as payment companies count; the ledger's nano-USD begin behind this interface. No call of a
provider is made inside a database transaction. A call that changes something carries a key under which the company
does it once, however often it is sent.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from billing.models import TopUp

# What everything is sold in, as payment companies write it.
CURRENCY = "usd"


class ProviderAway(Exception):
    """The company gave no answer, or said that it is busy: what was asked may have been done. Ask again."""


class ProviderRefused(Exception):
    """The company will not do it, and sending it again does not help; the message is fit for people."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class WebhookNotConfigured(Exception):
    """There is no secret to check a webhook with: nothing may be believed. Answered with 503."""


class WebhookNotGenuine(Exception):
    """The signature is absent, wrong or too old. Answered with 400."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A payment page that waits for the buyer, until it expires. `session` is the company's name for it."""

    session: str
    url: str
    expires_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class SavedMethod:
    """A payment method that the buyer left with the company, to be charged without them. Never the number itself."""

    customer: str
    method: str
    brand: str
    last4: str
    expires: dt.date | None


@dataclass(frozen=True, slots=True)
class PaymentArrived:
    """A payment was made. `reference` is the top-up's `provider_reference`, empty where the payment names none."""

    reference: str
    payment: str
    amount_cents: int
    currency: str
    # What the buyer allowed us to charge again. A webhook may not know it; `look_up` then does.
    method: SavedMethod | None = None


@dataclass(frozen=True, slots=True)
class PaymentFailed:
    """No payment came and none is on its way: the page ran out, it was declined, or the company knows nothing of it.

    The message is fit for people.
    """

    reference: str
    message: str


@dataclass(frozen=True, slots=True)
class PaymentUndecided:
    """No payment came yet, and one still may: the page is open, or a bank takes its days over a debit.

    Whoever waits for it goes on waiting, however long that lasts: what is given up here may be taken all the same.
    """

    reference: str


# How a payment stands when the company is asked about it.
Outcome = PaymentArrived | PaymentFailed | PaymentUndecided


@dataclass(frozen=True, slots=True)
class RefundChanged:
    """What became of a refund. `refund` is the company's name for it, `reference` ours, empty where it names none."""

    refund: str
    reference: str
    payment: str
    amount_cents: int
    currency: str
    # pending, succeeded, failed
    status: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class DisputeChanged:
    """The buyer's bank takes a payment back, or has decided. Of `payment`, as in PaymentArrived."""

    dispute: str
    payment: str
    amount_cents: int
    currency: str
    reason: str
    # open, won, lost
    status: str
    # Until when the company takes evidence for the seller, in ISO 8601; empty: it does not say.
    respond_by: str = ""


News = PaymentArrived | PaymentFailed | RefundChanged | DisputeChanged


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """One genuine webhook. `event` is unique among the company's events; None as news: nothing that concerns us."""

    event: str
    type: str
    occurred_at: dt.datetime
    news: News | None


class PaymentProvider(Protocol):
    """A payment company. Every method may raise ProviderAway and ProviderRefused, except where it says otherwise."""

    @property
    def slug(self) -> str:
        """Its name in the database and in TOPUP_PROVIDERS; never changes."""

    @property
    def name(self) -> str:
        """Its name for people."""

    @property
    def saves_methods(self) -> bool:
        """Whether a buyer may leave a payment method, which auto top-up charges."""

    @property
    def longest_call(self) -> dt.timedelta:
        """Within this every call has ended: as the client's limits on connecting, waiting and repeating add up."""

    def start_checkout(self, *, topup: TopUp, return_url: str, cancel_url: str) -> Checkout:
        """A page on which the buyer pays `topup.total_nanousd`, once however often it is asked for.

        With `topup.saves_method` the company keeps the payment method, for `topup.provider_customer` if that is
        not empty. `cancel_url` is where the buyer gets to who turns back.
        """

    def look_up(self, *, topup: TopUp) -> Outcome:
        """How the top-up's payment stands now, for one whose webhook never came.

        Not to be asked while a page or a charge is being asked for: what the company does not know of has failed. What
        it has and cannot decide yet is PaymentUndecided, and never PaymentFailed. One that has failed may be asked
        about again: should money have come since, it is PaymentArrived.
        """

    def read_webhook(self, *, body: bytes, headers: Mapping[str, str]) -> WebhookMessage:
        """The message of a webhook, from its raw body; `headers` by name, in any case.

        It asks nobody. Raises WebhookNotConfigured and WebhookNotGenuine, no other.
        """

    def charge_saved(self, *, topup: TopUp, method: SavedMethod) -> Outcome:
        """Charge a saved method what the top-up costs, once however often it is asked for; the buyer is not there.

        The answer is how the charge stands now, also where it was asked for before and stood otherwise then. Raises
        ProviderRefused where the bank declines, or wants the buyer to confirm, or this request is not taken: whether
        an earlier one was, `look_up` tells. ProviderAway leaves it open: the charge may have been made.
        """

    def forget_method(self, *, method: SavedMethod) -> None:
        """Let a saved method go, so that nobody can charge it any more. One that is gone already is no error."""

    def refund(self, *, topup: TopUp, amount_cents: int, reference: str) -> RefundChanged:
        """Give back that much of `topup.provider_payment`, once for each `reference`."""

    def find_refund(self, *, topup: TopUp, reference: str, refund: str) -> RefundChanged | None:
        """What became of a refund of the top-up: by the company's name for it, else by ours. It gives nothing back.

        `refund` is empty where the company has not named it. None: the company knows nothing of it.
        """
