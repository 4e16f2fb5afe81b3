"""What the fake Stripe knows: sessions, intents, methods, refunds, disputes and events, as Stripe shows them."""

import datetime as dt
import itertools
import threading
import time
import uuid
from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]

# Card numbers, after Stripe's own for tests.
GOOD = "4242424242424242"
DECLINED = "4000000000000002"
# Pays on the page, and is declined when it is charged again.
DECLINED_LATER = "4000000000000341"
# Pays on the page, and wants the buyer when it is charged again.
ASKS_FOR_CONFIRMATION = "4000002500003155"
# No card: a bank debit, which `settle` or `settle_charge` decides days later.
SLOW_BANK = "bank"

_SHORTEST_PAGE_S, _LONGEST_PAGE_S = 30 * 60, 24 * 60 * 60


class Refusal(Exception):
    """An answer with an error in it."""

    def __init__(self, status: int, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, **more}}


class Accounts:
    """The state, and what changes it. Every change that Stripe would tell adds to `events`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        # By id, whatever they are.
        self.objects: dict[str, Json] = {}
        self.events: list[Json] = []
        # What a refund becomes at once: succeeded, pending, failed.
        self.refunds_become = "succeeded"
        self.base_url = ""
        self._numbers = itertools.count(1)

    # --- What is asked over the API ------------------------------------------------------------------------

    def create_session(self, asked: Json) -> Json:
        """POST /v1/checkout/sessions."""
        life = int(asked["expires_at"]) - time.time()
        if not _SHORTEST_PAGE_S - 5 <= life <= _LONGEST_PAGE_S:
            raise _invalid("expires_at must be from 30 minutes to 24 hours away", param="expires_at")
        if asked.get("customer"):
            self.known(asked["customer"], "customer")
            if "customer_email" in asked or "customer_creation" in asked:
                raise _invalid("You may only specify one of these parameters: customer, customer_email")
        lines = [line["price_data"] for line in asked["line_items"].values()]
        of_intent = asked.get("payment_intent_data", {})
        return self.add(
            "cs_test",
            "checkout.session",
            url="",
            status="open",
            payment_status="unpaid",
            mode=asked["mode"],
            amount_total=sum(int(line["unit_amount"]) for line in lines),
            currency=lines[0]["currency"],
            lines=[
                {"name": line["product_data"]["name"], "amount": int(line["unit_amount"])} for line in lines
            ],
            client_reference_id=asked.get("client_reference_id"),
            metadata=asked.get("metadata", {}),
            customer=asked.get("customer"),
            customer_email=asked.get("customer_email"),
            customer_creation=asked.get("customer_creation", "if_required"),
            payment_intent=None,
            success_url=asked["success_url"],
            cancel_url=asked["cancel_url"],
            expires_at=int(asked["expires_at"]),
            intent_metadata=of_intent.get("metadata", {}),
            setup_future_usage=of_intent.get("setup_future_usage"),
        )

    def create_customer(self, asked: Json) -> Json:
        """POST /v1/customers."""
        return self.add("cus", "customer", email=asked.get("email"))

    def list_events(self, _asked: Json) -> Json:
        """GET /v1/events, newest first."""
        return {"object": "list", "data": self.events[::-1], "has_more": False, "url": "/v1/events"}

    def create_intent(self, asked: Json) -> Json:
        """POST /v1/payment_intents, confirmed at once and with nobody there."""
        method = self.known(asked["payment_method"], "payment_method")
        if method["customer"] != asked["customer"]:
            raise _invalid("The payment method does not belong to the customer", param="payment_method")
        if asked.get("automatic_payment_methods", {}).get("allow_redirects") != "never":
            raise _invalid("You must provide a return_url", param="return_url")
        number = method["number"]
        declined = {
            DECLINED_LATER: {"code": "card_declined", "decline_code": "insufficient_funds"},
            ASKS_FOR_CONFIRMATION: {
                "code": "authentication_required",
                "decline_code": "authentication_required",
            },
        }.get(number)
        status = (
            "requires_payment_method" if declined else "processing" if number == SLOW_BANK else "succeeded"
        )
        intent = self._intent(
            amount=int(asked["amount"]),
            currency=asked["currency"],
            customer=asked["customer"],
            method=method["id"],
            metadata=asked.get("metadata", {}),
            status=status,
        )
        if declined:
            intent["last_payment_error"] = {"message": "Your card was declined.", **declined}
            self.tell("payment_intent.payment_failed", intent)
            raise Refusal(402, "card_error", "Your card was declined.", **declined)
        if status == "succeeded":
            self.tell("payment_intent.succeeded", intent)
        return intent

    def list_intents(self, asked: Json) -> Json:
        """GET /v1/payment_intents, newest first."""
        since = int(asked.get("created", {}).get("gte", 0))
        found = [
            intent
            for intent in reversed(list(self.objects.values()))
            if intent["object"] == "payment_intent"
            and intent["created"] >= since
            and asked.get("customer") in (None, intent["customer"])
        ]
        return {"object": "list", "data": found, "has_more": False, "url": "/v1/payment_intents"}

    def detach(self, method_id: str) -> Json:
        """POST /v1/payment_methods/<id>/detach."""
        method = self.known(method_id, "payment_method")
        if method["customer"] is None:
            raise _invalid("The payment method you provided is not attached to a customer")
        method["customer"] = None
        return method

    def create_refund(self, asked: Json) -> Json:
        """POST /v1/refunds."""
        intent = self.known(asked["payment_intent"], "payment_intent")
        amount = int(asked["amount"])
        if amount > intent["amount_received"] - intent["refunded"]:
            raise _invalid("Refund amount is greater than unrefunded amount", param="amount")
        intent["refunded"] += amount
        refund = self.add(
            "re",
            "refund",
            amount=amount,
            currency=intent["currency"],
            payment_intent=intent["id"],
            metadata=asked.get("metadata", {}),
            status=self.refunds_become,
        )
        self.tell("refund.created", refund)
        return refund

    def list_refunds(self, asked: Json) -> Json:
        """GET /v1/refunds of a payment, newest first."""
        intent = self.known(asked["payment_intent"], "payment_intent")
        found = [
            refund for refund in self.of_kind("refund")[::-1] if refund["payment_intent"] == intent["id"]
        ]
        return {"object": "list", "data": found, "has_more": False, "url": "/v1/refunds"}

    # --- What happens elsewhere ----------------------------------------------------------------------------

    def pay(self, session_id: str, number: str = GOOD) -> Json:
        """The buyer pays on the page. Raises Refusal for a card that is declined: then they may try another."""
        with self.lock:
            session = self.known(session_id, "checkout.session")
            if session["status"] != "open" or session["expires_at"] <= time.time():
                raise _invalid("This page has expired")
            if number == DECLINED:
                raise Refusal(402, "card_error", "Your card was declined.", code="card_declined")
            customer = session["customer"]
            # In payment mode none is required, so without `always` the method is attached to nobody.
            if session["customer_creation"] == "always" and not customer:
                customer = self.add("cus", "customer", email=session["customer_email"])["id"]
            method = self.add_method(number, customer if session["setup_future_usage"] else None)
            is_slow = number == SLOW_BANK
            intent = self._intent(
                amount=session["amount_total"],
                currency=session["currency"],
                customer=customer,
                method=method["id"],
                metadata=session["intent_metadata"],
                status="processing" if is_slow else "succeeded",
            )
            session.update(
                status="complete",
                payment_status="unpaid" if is_slow else "paid",
                payment_intent=intent["id"],
                customer=customer,
            )
            if not is_slow:
                self.tell("payment_intent.succeeded", intent)
            self.tell("checkout.session.completed", session)
            return session

    def settle(self, session_id: str, *, is_paid: bool) -> None:
        """The bank decides about a payment by SLOW_BANK."""
        with self.lock:
            session = self.known(session_id, "checkout.session")
            self._decide(self.objects[session["payment_intent"]], is_paid=is_paid)
            if is_paid:
                session["payment_status"] = "paid"
            verb = "succeeded" if is_paid else "failed"
            self.tell(f"checkout.session.async_payment_{verb}", session)

    def settle_charge(self, intent_id: str, *, is_paid: bool) -> None:
        """The bank decides about a charge of SLOW_BANK with nobody there."""
        with self.lock:
            intent = self.known(intent_id, "payment_intent")
            self._decide(intent, is_paid=is_paid)
            self.tell(f"payment_intent.{'succeeded' if is_paid else 'payment_failed'}", intent)

    def expire(self, session_id: str) -> None:
        """The page runs out."""
        with self.lock:
            session = self.known(session_id, "checkout.session")
            session.update(status="expired", url=None)
            self.tell("checkout.session.expired", session)

    def settle_refund(self, refund_id: str, status: str, *, reason: str = "") -> None:
        """A refund that was pending succeeds, or one fails: succeeded, failed, canceled."""
        with self.lock:
            refund = self.known(refund_id, "refund")
            refund.update(status=status, failure_reason=reason or None)
            if status != "succeeded":
                self.objects[refund["payment_intent"]]["refunded"] -= refund["amount"]
            self.tell("refund.failed" if status == "failed" else "refund.updated", refund)

    def dispute(self, payment: str, *, amount_cents: int | None = None, reason: str = "fraudulent") -> Json:
        """The buyer's bank takes a payment (`pi_…`) back."""
        with self.lock:
            intent = self.known(payment, "payment_intent")
            dispute = self.add(
                "du",
                "dispute",
                amount=amount_cents or intent["amount_received"],
                currency=intent["currency"],
                payment_intent=intent["id"],
                reason=reason,
                status="needs_response",
            )
            self.tell("charge.dispute.created", dispute)
            return dispute

    def decide_dispute(self, dispute_id: str, status: str) -> None:
        """The bank decides: won, lost, or warning_closed."""
        with self.lock:
            dispute = self.known(dispute_id, "dispute")
            dispute["status"] = status
            self.tell("charge.dispute.closed", dispute)

    # --- Objects -------------------------------------------------------------------------------------------

    def add(self, prefix: str, kind: str, **fields: Any) -> Json:
        made = {
            "id": f"{prefix}_{uuid.uuid4().hex[:24]}",
            "object": kind,
            "created": int(time.time()),
            "livemode": False,
            **fields,
        }
        if kind == "checkout.session":
            made["url"] = f"{self.base_url}/pay/{made['id']}"
        self.objects[made["id"]] = made
        return made

    def add_customer(self) -> str:
        """A customer; returns `cus_…`."""
        return str(self.add("cus", "customer", email="buyer@example.com")["id"])

    def add_method(self, number: str = GOOD, customer: str | None = None) -> Json:
        """A payment method of that number, attached to a customer if one is given."""
        in_two_years = dt.datetime.now(dt.UTC).year + 2
        details = (
            {"us_bank_account": {"bank_name": "TEST BANK", "last4": "6789"}, "type": "us_bank_account"}
            if number == SLOW_BANK
            else {
                "card": {
                    "brand": "visa",
                    "last4": number[-4:],
                    "exp_month": 2,
                    "exp_year": in_two_years,
                },
                "type": "card",
            }
        )
        return self.add("pm", "payment_method", number=number, customer=customer, **details)

    def known(self, name: str, kind: str) -> Json:
        found = self.objects.get(name)
        if found is None or found["object"] != kind:
            raise Refusal(
                404, "invalid_request_error", f"No such {kind}: '{name}'", code="resource_missing", param="id"
            )
        return found

    def of_kind(self, kind: str) -> list[Json]:
        return [found for found in self.objects.values() if found["object"] == kind]

    def tell(self, kind: str, told: Json, **lies: Any) -> Json:
        """An event about an object as it is now; `lies` replace fields of it. It is kept, and not delivered yet."""
        event = {
            "id": f"evt_{next(self._numbers)}_{uuid.uuid4().hex[:16]}",
            "object": "event",
            "type": kind,
            "created": int(time.time()),
            "livemode": False,
            "data": {"object": {**told, **lies}},
        }
        self.events.append(event)
        return event

    def shown(self, told: Json, expand: Iterable[str]) -> Json:
        """An object as the API shows it, with what was asked to be expanded."""
        shown = dict(told)
        for path in expand:
            head, _, rest = path.partition(".")
            inner = shown.get(head)
            if isinstance(inner, list):
                shown[head] = [self.shown(item, [rest]) for item in inner]
            elif isinstance(inner, str) and inner in self.objects:
                shown[head] = self.shown(self.objects[inner], [rest] if rest else [])
        return shown

    def _decide(self, intent: Json, *, is_paid: bool) -> None:
        intent["status"] = "succeeded" if is_paid else "requires_payment_method"
        if is_paid:
            intent["amount_received"] = intent["amount"]
        else:
            intent["last_payment_error"] = {"message": "The bank has sent the debit back."}

    def _intent(
        self, *, amount: int, currency: str, customer: str | None, method: str, metadata: Json, status: str
    ) -> Json:
        return self.add(
            "pi",
            "payment_intent",
            amount=amount,
            amount_received=amount if status == "succeeded" else 0,
            refunded=0,
            currency=currency,
            customer=customer,
            payment_method=method,
            metadata=metadata,
            status=status,
            last_payment_error=None,
        )


def _invalid(message: str, **more: Any) -> Refusal:
    return Refusal(400, "invalid_request_error", message, **more)
