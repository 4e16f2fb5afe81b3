"""A payment company that does what it is asked once, and sometimes does not live to say so."""

import contextlib
import datetime as dt
import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from unittest import mock

import psycopg
from django.db import connection

from billing.models import TopUp
from billing.providers.provider import (
    CURRENCY,
    Checkout,
    Outcome,
    PaymentArrived,
    PaymentFailed,
    PaymentUndecided,
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
    UNDECIDED = "it charges, and the bank takes days to say how that ends"
    AWAY_BEFORE = "no answer, and nothing was done"
    AWAY_AFTER = "no answer, and it was done"
    KILLED_BEFORE = "we die before it is done"
    KILLED_AFTER = "we die after it is done"


@dataclass
class Company:
    """Remembers how each payment stands and what it gave back, by the reference under which it was asked."""

    slug: str = "company"
    name: str = "Company"
    saves_methods: bool = True
    longest_call: dt.timedelta = dt.timedelta(0)
    mood: Mood = Mood.WELL
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    refunds: dict[str, RefundChanged] = field(default_factory=dict)

    def forget(self) -> None:
        """Everything that was asked of it."""
        self.mood = Mood.WELL
        self.outcomes.clear()
        self.refunds.clear()

    def pay(self, topup: TopUp) -> PaymentArrived:
        """The buyer pays what the top-up costs; once, as its page is closed then."""
        arrived = _payment_of(topup)
        self.outcomes[topup.provider_reference] = arrived
        return arrived

    def send_back(self, topup: TopUp) -> PaymentFailed:
        """The bank does, with a charge that it had yet to decide."""
        failed = PaymentFailed(topup.provider_reference, "The bank has sent the debit back.")
        self.outcomes[topup.provider_reference] = failed
        return failed

    @property
    def payments(self) -> dict[str, PaymentArrived]:
        """What has arrived."""
        return {
            reference: outcome
            for reference, outcome in self.outcomes.items()
            if isinstance(outcome, PaymentArrived)
        }

    def start_checkout(self, *, topup: TopUp, return_url: str, cancel_url: str) -> Checkout:
        return Checkout(session=topup.provider_reference, url=return_url)

    def look_up(self, *, topup: TopUp) -> Outcome:
        """A page stays open, and a charge of which it does not know was declined or never made."""
        reference = topup.provider_reference
        if topup.method is None:
            return self.outcomes.get(reference, PaymentUndecided(reference))
        return self.outcomes.get(reference, PaymentFailed(reference, "There is no such charge."))

    def read_webhook(self, *, body: bytes, headers: Mapping[str, str]) -> WebhookMessage:
        raise WebhookNotConfigured

    def charge_saved(self, *, topup: TopUp, method: SavedMethod) -> Outcome:
        reference = topup.provider_reference
        takes_days = self.mood is Mood.UNDECIDED
        return self._answer(
            self.outcomes,
            reference,
            lambda: PaymentUndecided(reference) if takes_days else _payment_of(topup),
        )

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


def _payment_of(topup: TopUp) -> PaymentArrived:
    return PaymentArrived(
        reference=topup.provider_reference,
        payment=f"pay-{topup.provider_reference}",
        amount_cents=topup.total_nanousd // CENT,
        currency=CURRENCY,
    )


@contextlib.contextmanager
def killed_at(statement: int) -> Iterator[None]:
    """The process dies instead of sending that statement to PostgreSQL, counted from 1, with what it had not committed.

    Within, what the code commits is a savepoint of the test's transaction.
    """
    left = statement

    def count(execute: Callable[..., Any], sql: str, *rest: Any, **options: Any) -> Any:
        nonlocal left
        if not sql.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK")):
            left -= 1
            if left == 0:
                raise Killed
        return execute(sql, *rest, **options)

    def on_the_wire(self: psycopg.Connection[Any], query: Any, *rest: Any, **options: Any) -> Any:
        return count(partial(_EXECUTE, self), str(query), *rest, **options)

    def of_a_batch(self: psycopg.RawCursor[Any], query: Any, *rest: Any, **options: Any) -> Any:
        return count(partial(_EXECUTE_RAW, self), str(query), *rest, **options)

    # Wallets and the books of a batch speak to PostgreSQL past Django.
    with (
        connection.execute_wrapper(count),
        mock.patch.object(psycopg.Connection, "execute", on_the_wire),
        mock.patch.object(psycopg.RawCursor, "execute", of_a_batch),
    ):
        yield


_EXECUTE, _EXECUTE_RAW = psycopg.Connection.execute, psycopg.RawCursor.execute
