"""What the objects of Stripe's API mean to us, as plain JSON: in an answer, and in a webhook, they look alike.

https://docs.stripe.com/api describes them. Whatever lacks a field that is needed raises KeyError or TypeError.
"""

import calendar
import datetime as dt
from collections.abc import Callable
from typing import Any

from billing.providers.provider import (
    DisputeChanged,
    News,
    Outcome,
    PaymentArrived,
    PaymentFailed,
    PaymentUndecided,
    RefundChanged,
    SavedMethod,
    WebhookMessage,
)

Json = dict[str, Any]

# What we write into the metadata of what we ask for: the top-up's reference, the refund's, and that nobody is there.
REFERENCE, REFUND, UNATTENDED = "tollgate_topup", "tollgate_refund", "tollgate_unattended"

_PAGE_EXPIRED = "The payment page ran out before anything was paid."
_DECLINED = "The payment was declined."
# An inquiry takes no money, and an appeal changes nothing until it is decided.
_DISPUTE_STATUS = {
    "needs_response": "open",
    "under_review": "open",
    "won": "won",
    "prevented": "won",
    "lost": "lost",
}
_REFUND_STATUS = {"succeeded": "succeeded", "failed": "failed", "canceled": "failed"}


def message_of(event: Json) -> WebhookMessage:
    """A webhook's event. What is not decided yet is no news."""
    read = _READERS.get(event["type"])
    news = read(event["data"]["object"]) if read else None
    return WebhookMessage(
        event=str(event["id"]),
        type=str(event["type"]),
        occurred_at=dt.datetime.fromtimestamp(event["created"], dt.UTC),
        news=None if isinstance(news, PaymentUndecided) else news,
    )


def of_session(session: Json) -> Outcome:
    """How a Checkout Session's payment stands. One that is complete and unpaid waits for a bank."""
    if session["payment_status"] == "paid":
        intent = session["payment_intent"]
        return PaymentArrived(
            reference=_session_reference(session),
            payment=_id(intent),
            amount_cents=int(session["amount_total"]),
            currency=str(session["currency"]),
            method=_method(intent) if isinstance(intent, dict) else None,
        )
    if session["status"] == "expired":
        return PaymentFailed(_session_reference(session), _PAGE_EXPIRED)
    intent = session["payment_intent"]
    if session["status"] == "complete" and isinstance(intent, dict):
        return of_intent(intent)
    return PaymentUndecided(_session_reference(session))


def _of_failed_session(session: Json) -> PaymentFailed:
    return PaymentFailed(_session_reference(session), _DECLINED)


def of_intent(intent: Json) -> Outcome:
    """How a PaymentIntent stands that the buyer need not confirm. `processing` waits for a bank, for days perhaps."""
    if intent["status"] == "succeeded":
        return PaymentArrived(
            reference=reference_of(intent),
            payment=str(intent["id"]),
            amount_cents=int(intent["amount_received"]),
            currency=str(intent["currency"]),
            method=_method(intent),
        )
    if intent["status"] in {"canceled", "requires_payment_method", "requires_action"}:
        told = (intent.get("last_payment_error") or {}).get("message")
        return PaymentFailed(reference_of(intent), told or _DECLINED)
    return PaymentUndecided(reference_of(intent))


def _of_failed_intent(intent: Json) -> Outcome | None:
    """On a payment page the buyer may try another card, so there a decline is no end."""
    return of_intent(intent) if (intent.get("metadata") or {}).get(UNATTENDED) else None


def of_refund(refund: Json) -> RefundChanged:
    return RefundChanged(
        refund=str(refund["id"]),
        reference=str((refund.get("metadata") or {}).get(REFUND, "")),
        payment=_id(refund["payment_intent"]),
        amount_cents=int(refund["amount"]),
        currency=str(refund["currency"]),
        status=_REFUND_STATUS.get(refund["status"], "pending"),
        message=str(refund.get("failure_reason") or "").replace("_", " "),
    )


def _of_dispute(dispute: Json) -> DisputeChanged | None:
    status = _DISPUTE_STATUS.get(dispute["status"])
    if status is None:
        return None
    due_by = (dispute.get("evidence_details") or {}).get("due_by")
    return DisputeChanged(
        dispute=str(dispute["id"]),
        payment=_id(dispute["payment_intent"]),
        amount_cents=int(dispute["amount"]),
        currency=str(dispute["currency"]),
        reason=str(dispute["reason"]).replace("_", " "),
        status=status,
        respond_by=dt.datetime.fromtimestamp(due_by, dt.UTC).isoformat() if due_by else "",
    )


def reference_of(intent: Json) -> str:
    return str((intent.get("metadata") or {}).get(REFERENCE, ""))


def _session_reference(session: Json) -> str:
    return str((session.get("metadata") or {}).get(REFERENCE) or session.get("client_reference_id") or "")


def _id(named: Any) -> str:
    """The id of an object that may be expanded; empty where there is none."""
    return str(named["id"] if isinstance(named, dict) else named or "")


def _method(intent: Json) -> SavedMethod | None:
    """The method that an intent has left with its customer, where it is expanded."""
    method, customer = intent.get("payment_method"), _id(intent.get("customer"))
    if not isinstance(method, dict) or not customer or not method.get("customer"):
        return None
    kind = str(method["type"])
    told = method.get(kind) or {}
    return SavedMethod(
        customer=customer,
        method=str(method["id"]),
        brand=str(told.get("brand") or told.get("bank_name") or kind).replace("_", " ").capitalize(),
        last4=str(told.get("last4") or "")[-4:],
        expires=_last_day(told.get("exp_year"), told.get("exp_month")),
    )


def _last_day(year: int | None, month: int | None) -> dt.date | None:
    if not year or not month:
        return None
    return dt.date(year, month, calendar.monthrange(year, month)[1])


# The events that concern us; docs/operations.md tells the operator to choose these.
_READERS: dict[str, Callable[[Json], News | PaymentUndecided | None]] = {
    "checkout.session.completed": of_session,
    "checkout.session.async_payment_succeeded": of_session,
    "checkout.session.async_payment_failed": _of_failed_session,
    "checkout.session.expired": of_session,
    "payment_intent.succeeded": of_intent,
    "payment_intent.payment_failed": _of_failed_intent,
    "refund.created": of_refund,
    "refund.updated": of_refund,
    "refund.failed": of_refund,
    "charge.dispute.created": _of_dispute,
    "charge.dispute.updated": _of_dispute,
    "charge.dispute.closed": _of_dispute,
    "charge.dispute.funds_withdrawn": _of_dispute,
    "charge.dispute.funds_reinstated": _of_dispute,
}
EVENTS = frozenset(_READERS)
