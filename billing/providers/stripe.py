"""Stripe: its payment pages, its webhooks, the methods that it keeps, and what goes back through it.

All it is asked goes through its own library. What its objects mean to us is read in `stripe_objects`.
"""

import datetime as dt
import functools
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import stripe
from django.conf import settings

from billing.models import TopUp
from billing.providers import stripe_objects
from billing.providers.provider import (
    CURRENCY,
    Checkout,
    Outcome,
    PaymentFailed,
    PaymentUndecided,
    ProviderAway,
    ProviderRefused,
    RefundChanged,
    SavedMethod,
    WebhookMessage,
    WebhookNotConfigured,
    WebhookNotGenuine,
)
from billing.providers.stripe_objects import REFERENCE, REFUND, UNATTENDED
from catalog.money import NANO_PER_CENT

if TYPE_CHECKING:
    from stripe.params import PaymentIntentCreateParams
    from stripe.params.checkout import SessionCreateParams, SessionCreateParamsLineItem

logger = logging.getLogger(__name__)

# The version whose objects are read here. It rises together with the library, after reading Stripe's list of changes.
API_VERSION = "2026-10-28.endive"
# Connecting, and waiting for an answer. Stripe says that a charge may take half a minute.
_TIMEOUTS_S = (5.0, 40.0)
# Of what did not get through, or was answered with 409 or 5xx; the idempotency key makes them one.
_RETRIES = 2
# The library waits between its attempts, at most so long.
_LONGEST_CALL = dt.timedelta(
    seconds=(1 + _RETRIES) * sum(_TIMEOUTS_S) + _RETRIES * stripe.HTTPClient.MAX_DELAY
)
# A webhook that is older has been kept by somebody.
_TOLERANCE_S = 300
# How long a payment page waits. Stripe allows from 30 minutes to 24 hours, from when it makes the page.
_PAGE_LIFE = dt.timedelta(hours=2)
# Clocks differ: a charge that we have asked for is not older than this by Stripe's.
_CLOCK_DIFFERENCE = dt.timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class StripeProvider:
    """Takes cards, and whatever else the operator has switched on at Stripe."""

    slug: str = "stripe"
    name: str = "Stripe"
    saves_methods: bool = True
    longest_call: dt.timedelta = _LONGEST_CALL

    def start_checkout(self, *, topup: TopUp, return_url: str, cancel_url: str) -> Checkout:
        asked = _purchase(topup, return_url, cancel_url)
        stranger = _as_stranger(topup, asked)
        key = f"checkout:{topup.provider_reference}"
        if topup.provider_customer:
            try:
                made = _page({**asked, "customer": topup.provider_customer}, key)
            except ProviderRefused as refused:
                # Deleted at Stripe, or of the test mode: then they are a new customer.
                if refused.code != "resource_missing":
                    raise
                made = _page(stranger, f"{key}:anew")
        else:
            made = _page(stranger, key)
        if made.url is None:
            msg = "Stripe has closed this payment page. Choose the amount again."
            raise ProviderRefused(msg, code="page_closed")
        return Checkout(session=made.id, url=made.url, expires_at=topup.created_at + _PAGE_LIFE)

    def look_up(self, *, topup: TopUp) -> Outcome:
        if topup.checkout_session:
            with _answered():
                found = _client().v1.checkout.sessions.retrieve(
                    topup.checkout_session, {"expand": ["payment_intent.payment_method"]}
                )
            return stripe_objects.of_session(found.to_dict())
        if topup.method is None:
            # The buyer was never told of a page, so nobody can pay on it.
            return PaymentFailed(topup.provider_reference, "The payment page was never opened.")
        with _answered():
            intents = _client().v1.payment_intents.list(
                {
                    "customer": topup.provider_customer,
                    "created": {"gte": int((topup.created_at - _CLOCK_DIFFERENCE).timestamp())},
                    "expand": ["data.payment_method"],
                    "limit": 100,
                }
            )
            for intent in intents.auto_paging_iter():
                found_intent = intent.to_dict()
                if stripe_objects.reference_of(found_intent) == topup.provider_reference:
                    return stripe_objects.of_intent(found_intent)
        return PaymentFailed(topup.provider_reference, "The charge was never made.")

    def read_webhook(self, *, body: bytes, headers: Mapping[str, str]) -> WebhookMessage:
        secrets = [secret.strip() for secret in settings.STRIPE_WEBHOOK_SECRETS if secret.strip()]
        if not secrets:
            msg = "STRIPE_WEBHOOK_SECRETS is empty"
            raise WebhookNotConfigured(msg)
        signature = {name.lower(): value for name, value in headers.items()}.get("stripe-signature")
        if not any(_is_signed(body, signature, secret) for secret in secrets):
            msg = "no secret of STRIPE_WEBHOOK_SECRETS has signed this within the last five minutes"
            raise WebhookNotGenuine(msg)
        try:
            event = json.loads(body)
            if event["livemode"] is not _is_live():
                # Both secrets at once are easily set by mistake; play money must not become credit.
                msg = "a test event for a live key, or the other way round"
                raise WebhookNotGenuine(msg)
            return stripe_objects.message_of(event)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            OverflowError,
            OSError,
        ) as error:
            msg = f"not an event as Stripe writes them: {type(error).__name__}"
            raise WebhookNotGenuine(msg) from error

    def charge_saved(self, *, topup: TopUp, method: SavedMethod) -> Outcome:
        asked: PaymentIntentCreateParams = {
            "amount": topup.total_nanousd // NANO_PER_CENT,
            "currency": CURRENCY,
            "customer": method.customer,
            "payment_method": method.method,
            "confirm": True,
            "off_session": True,
            # Nobody is there to be sent anywhere; without this Stripe asks for an address to come back to.
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "description": f"Top-up {topup.pk}",
            "metadata": {REFERENCE: topup.provider_reference, UNATTENDED: "1"},
        }
        with _answered():
            intent = _client().v1.payment_intents.create(
                asked, {"idempotency_key": f"charge:{topup.provider_reference}"}
            )
            outcome = stripe_objects.of_intent(intent.to_dict())
            if isinstance(outcome, PaymentUndecided):
                # A request that is repeated gets the answer of the first time, and a bank may have decided since.
                outcome = stripe_objects.of_intent(_client().v1.payment_intents.retrieve(intent.id).to_dict())
        return outcome

    def forget_method(self, *, method: SavedMethod) -> None:
        try:
            with _answered():
                _client().v1.payment_methods.detach(method.method)
        except ProviderRefused as refused:
            # Gone, or not attached to anybody any more.
            if refused.code not in {"resource_missing", "payment_method_unexpected_state", ""}:
                raise

    def refund(self, *, topup: TopUp, amount_cents: int, reference: str) -> RefundChanged:
        with _answered():
            made = _client().v1.refunds.create(
                {
                    "payment_intent": topup.provider_payment,
                    "amount": amount_cents,
                    "metadata": {REFUND: reference},
                },
                {"idempotency_key": f"refund:{reference}"},
            )
        return stripe_objects.of_refund(made.to_dict())

    def find_refund(self, *, topup: TopUp, reference: str, refund: str) -> RefundChanged | None:
        if refund:
            try:
                with _answered():
                    return stripe_objects.of_refund(_client().v1.refunds.retrieve(refund).to_dict())
            except ProviderRefused as refused:
                if refused.code != "resource_missing":
                    raise
        with _answered():
            # One that Stripe does not know the payment of is refused: that says nothing about the refund.
            made = _client().v1.refunds.list({"payment_intent": topup.provider_payment, "limit": 100})
            for found in made.auto_paging_iter():
                news = stripe_objects.of_refund(found.to_dict())
                if news.reference == reference:
                    return news
        return None


STRIPE = StripeProvider()


def _purchase(topup: TopUp, return_url: str, cancel_url: str) -> "SessionCreateParams":
    """What the page is for, whoever pays; the same each time, since its idempotency key is."""
    asked: SessionCreateParams = {
        "mode": "payment",
        "line_items": lines_of(topup),
        # The quote is in USD, and is what is charged.
        "adaptive_pricing": {"enabled": False},
        "client_reference_id": topup.provider_reference,
        "metadata": {REFERENCE: topup.provider_reference},
        "payment_intent_data": {
            "description": f"Top-up {topup.pk}",
            "metadata": {REFERENCE: topup.provider_reference},
        },
        "submit_type": "pay",
        "success_url": return_url,
        "cancel_url": cancel_url,
        "expires_at": int((topup.created_at + _PAGE_LIFE).timestamp()),
    }
    if topup.saves_method:
        asked["payment_intent_data"]["setup_future_usage"] = "off_session"
    return asked


def _as_stranger(topup: TopUp, asked: "SessionCreateParams") -> "SessionCreateParams":
    """For somebody whom Stripe does not know yet, and must know from then on if it is to keep a method of theirs."""
    stranger: SessionCreateParams = {**asked}
    if topup.saves_method:
        stranger["customer_creation"] = "always"
    if topup.created_by is not None:
        stranger["customer_email"] = topup.created_by.email
    return stranger


def _page(asked: "SessionCreateParams", key: str) -> stripe.checkout.Session:
    with _answered():
        return _client().v1.checkout.sessions.create(asked, {"idempotency_key": key})


def lines_of(topup: TopUp) -> "list[SessionCreateParamsLineItem]":
    """What the payment page lists: the credit, and the fee if there is one."""
    percent = f"{(topup.fee_rate * 100).normalize():f}"
    named = {"Credit": topup.credit_nanousd, f"Fee ({percent} %)": topup.fee_nanousd}
    return [
        {
            "quantity": 1,
            "price_data": {
                "currency": CURRENCY,
                "unit_amount": amount_nanousd // NANO_PER_CENT,
                "product_data": {"name": name},
            },
        }
        for name, amount_nanousd in named.items()
        if amount_nanousd
    ]


def _client() -> stripe.StripeClient:
    if not settings.STRIPE_SECRET_KEY:
        logger.error("STRIPE_SECRET_KEY is empty")
        raise ProviderRefused(_NOT_SET_UP, code="not_set_up")
    return _made_client(settings.STRIPE_SECRET_KEY, settings.STRIPE_API_URL)


@functools.lru_cache(maxsize=2)
def _made_client(key: str, address: str) -> stripe.StripeClient:
    return stripe.StripeClient(
        key,
        stripe_version=API_VERSION,
        max_network_retries=_RETRIES,
        base_addresses={"api": address} if address else None,
        http_client=stripe.RequestsClient(timeout=_TIMEOUTS_S),
    )


def _is_live() -> bool:
    # sk_live_… and rk_live_… (a restricted key); what has no mode in its name is for tests.
    return "_live_" in settings.STRIPE_SECRET_KEY


def _is_signed(body: bytes, signature: str | None, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret, _TOLERANCE_S)
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False
    return True


_NOT_SET_UP = "Payments are not set up correctly here. Tell whoever operates this installation."
_REFUSED = "Stripe does not accept this payment. Nothing was charged."
_DECLINED = {
    "authentication_required": "The bank wants you to confirm this payment: buy credit on the payment page.",
    "expired_card": "The card has expired.",
    "insufficient_funds": "The card was declined: there is not enough money on it.",
    "lost_card": "The card was declined.",
    "stolen_card": "The card was declined.",
}


@contextmanager
def _answered() -> Iterator[None]:
    """Turn the library's errors into ours. What Stripe says of keys and requests is for the log, not for buyers."""
    try:
        yield
    except stripe.CardError as error:
        code = _decline_code(error)
        raise ProviderRefused(_DECLINED.get(code) or error.user_message or _REFUSED, code=code) from None
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        logger.error("Stripe does not accept STRIPE_SECRET_KEY: %s", type(error).__name__)  # noqa: TRY400
        raise ProviderRefused(_NOT_SET_UP, code="not_set_up") from None
    except (stripe.APIConnectionError, stripe.RateLimitError) as error:
        raise ProviderAway(f"Stripe: {type(error).__name__}, status {error.http_status}") from None
    except (stripe.InvalidRequestError, stripe.IdempotencyError) as error:
        if error.http_status == _CONFLICT:
            raise ProviderAway("Stripe is still busy with the same request") from None
        logger.warning("Stripe refused a request: %s", error)
        raise ProviderRefused(_REFUSED, code=error.code or "") from None
    except stripe.StripeError as error:
        raise ProviderAway(f"Stripe: {type(error).__name__}, status {error.http_status}") from None


_CONFLICT = 409


def _decline_code(error: stripe.CardError) -> str:
    """Why the bank declined, as far as it says: `insufficient_funds`; else the error's own code: `card_declined`."""
    detail: Any = error.json_body
    inner = detail.get("error", {}) if isinstance(detail, dict) else {}
    return str(inner.get("decline_code") or error.code or "")
