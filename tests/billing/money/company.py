"""A payment company that does what it is asked once, and sometimes does not live to say so."""

import contextlib
import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.db import connection

from billing.models import TopUp
from billing.providers.provider import (
    CURRENCY,
    Checkout,
    PaymentArrived,
    ProviderAway,
    ProviderRefused,
    RefundChanged,
    SavedMethod,
    WebhookMessage,
    WebhookNotConfigured,
)
from tests.billing.money.model import CENT

T = TypeVar("T")


class Killed(BaseException):
    """The process ends here. Nobody catches it, as nobody catches SIGKILL: a transaction that is open is lost."""


class Mood(enum.Enum):
    """How the next call ends."""

    WELL = "it answers"
    REFUSES = "it refuses"
    AWAY_BEFORE = "no answer, and nothing was done"
    AWAY_AFTER = "no answer, and it was done"
    KILLED_BEFORE = "we die before it is done"
    KILLED_AFTER = "we die after it is done"


@dataclass
class Company:
    """Remembers what it was paid and what it gave back, by the reference under which it was asked."""

    slug: str = "company"
    name: str = "Company"
    saves_methods: bool = True
    mood: Mood = Mood.WELL
    payments: dict[str, PaymentArrived] = field(default_factory=dict)
    refunds: dict[str, RefundChanged] = field(default_factory=dict)

    def forget(self) -> None:
        """Everything that was asked of it."""
        self.mood = Mood.WELL
        self.payments.clear()
        self.refunds.clear()

    def pay(self, topup: TopUp) -> PaymentArrived:
        """The buyer pays what the top-up costs; once, as its page is closed then."""
        reference = topup.provider_reference
        arrived = PaymentArrived(
            reference=reference,
            payment=f"pay-{reference}",
            amount_cents=topup.total_nanousd // CENT,
            currency=CURRENCY,
        )
        return self.payments.setdefault(reference, arrived)

    def start_checkout(self, *, topup: TopUp, return_url: str, cancel_url: str) -> Checkout:
        return Checkout(session=topup.provider_reference, url=return_url)

    def look_up(self, *, topup: TopUp) -> PaymentArrived | None:
        return self.payments.get(topup.provider_reference)

    def read_webhook(self, *, body: bytes, headers: Mapping[str, str]) -> WebhookMessage:
        raise WebhookNotConfigured

    def charge_saved(self, *, topup: TopUp, method: SavedMethod) -> PaymentArrived:
        return self._answer(self.payments, topup.provider_reference, lambda: self.pay(topup))

    def forget_method(self, *, method: SavedMethod) -> None:
        """It keeps none."""

    def refund(self, *, topup: TopUp, amount_cents: int, reference: str) -> RefundChanged:
        def give_back() -> RefundChanged:
            return RefundChanged(
                f"re-{reference}", reference, topup.provider_payment, amount_cents, CURRENCY, "succeeded"
            )

        return self._answer(self.refunds, reference, give_back)

    def find_refund(self, *, topup: TopUp, reference: str, refund: str) -> RefundChanged | None:
        return self.refunds.get(reference)

    def _answer(self, done: dict[str, T], reference: str, act: Callable[[], T]) -> T:
        mood, self.mood = self.mood, Mood.WELL
        if mood is Mood.REFUSES and reference not in done:
            msg = "The card was declined."
            raise ProviderRefused(msg)
        if mood is Mood.AWAY_BEFORE:
            raise ProviderAway
        if mood is Mood.KILLED_BEFORE:
            raise Killed
        if reference not in done:
            done[reference] = act()
        if mood is Mood.AWAY_AFTER:
            raise ProviderAway
        if mood is Mood.KILLED_AFTER:
            raise Killed
        return done[reference]


@contextlib.contextmanager
def killed_at(statement: int) -> Iterator[None]:
    """The process dies instead of sending that statement to PostgreSQL, counted from 1, with what it had not committed.

    Within, what the code commits is a savepoint of the test's transaction.
    """
    left = statement

    def count(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal left
        if not sql.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK")):
            left -= 1
            if left == 0:
                raise Killed
        return execute(sql, *rest)

    with connection.execute_wrapper(count):
        yield
