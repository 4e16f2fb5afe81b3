"""The provider that takes no money: its payment page is a page of ours, and says so."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from django.urls import reverse
from django.utils import timezone

from billing.models import TopUp
from billing.providers.provider import (
    CURRENCY,
    Checkout,
    Outcome,
    PaymentArrived,
    PaymentFailed,
    PaymentUndecided,
    ProviderRefused,
    RefundChanged,
    SavedMethod,
    WebhookMessage,
    WebhookNotConfigured,
)
from catalog.money import NANO_PER_CENT

# What a buyer leaves who allows to be charged again; the second card is for seeing what a refusal does.
CARD = SavedMethod("sandbox", "sandbox-card", "Sandbox", "4242", dt.date(2099, 12, 31))
DECLINED_CARD = SavedMethod("sandbox", "sandbox-card-declined", "Sandbox", "0002", dt.date(2099, 12, 31))
# How long its payment page waits, as others' do.
_PAGE_LIFE = dt.timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class SandboxProvider:
    """Takes no money, gives none back, and never disputes."""

    slug: str = "sandbox"
    name: str = "Sandbox"
    saves_methods: bool = True
    longest_call: dt.timedelta = dt.timedelta(0)

    def start_checkout(self, *, topup: TopUp, return_url: str, cancel_url: str) -> Checkout:
        url = reverse("billing:sandbox_payment", args=[topup.provider_reference])
        return Checkout(session=topup.provider_reference, url=url, expires_at=topup.created_at + _PAGE_LIFE)

    def look_up(self, *, topup: TopUp) -> Outcome:
        """What was paid its page has told, and a charge is over when it is answered; so nothing else was paid."""
        if topup.method is not None:
            return PaymentFailed(topup.provider_reference, "The charge was never made.")
        if is_page_open(topup=topup):
            return PaymentUndecided(topup.provider_reference)
        return PaymentFailed(topup.provider_reference, "The payment page ran out before anything was paid.")

    def read_webhook(self, *, body: bytes, headers: Mapping[str, str]) -> WebhookMessage:
        msg = "the sandbox sends no webhooks"
        raise WebhookNotConfigured(msg)

    def charge_saved(self, *, topup: TopUp, method: SavedMethod) -> Outcome:
        if method.method != CARD.method:
            msg = "The sandbox's card was declined."
            raise ProviderRefused(msg, code="card_declined")
        return payment_of(topup=topup, method=method)

    def forget_method(self, *, method: SavedMethod) -> None:
        """It has kept none."""

    def refund(self, *, topup: TopUp, amount_cents: int, reference: str) -> RefundChanged:
        return RefundChanged(
            refund=f"sandbox-{reference}",
            reference=reference,
            payment=topup.provider_reference,
            amount_cents=amount_cents,
            currency=CURRENCY,
            status="succeeded",
        )

    def find_refund(self, *, topup: TopUp, reference: str, refund: str) -> RefundChanged | None:
        """It answers at once, and remembers nothing: what it did not answer was not made."""
        return None


SANDBOX = SandboxProvider()


def is_page_open(*, topup: TopUp) -> bool:
    """Whether the top-up can be paid on the sandbox's page: as at a company, by that company's clock."""
    return topup.status == TopUp.Status.PENDING and timezone.now() < topup.created_at + _PAGE_LIFE


def payment_of(*, topup: TopUp, method: SavedMethod | None = None) -> PaymentArrived:
    """The payment that the sandbox reports for a top-up."""
    return PaymentArrived(
        reference=topup.provider_reference,
        payment=topup.provider_reference,
        amount_cents=topup.total_nanousd // NANO_PER_CENT,
        currency=CURRENCY,
        method=method,
    )
