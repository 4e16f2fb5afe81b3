"""No cent is lost or made on the way: what is quoted is what Stripe is asked for, and what the ledger holds.

Every amount from $5.00 to $100.00, at each rate, goes through the functions that decide an amount: the quote, the lines
that Stripe is asked to charge, and the legs of the top-up; and every one of them is posted, twenty to a transaction:
one for each would take minutes. Sampled is only the whole way of a purchase, with payment, wallet and receipt: it is
gone by every 29th amount at 25 %, and with the fake Stripe's own sum by eleven at each rate.
"""

from decimal import Decimal
from typing import Any

import pytest
from django.db.models import Sum

from accounts.models import Plan
from billing import crediting, ledger, topping_up, verifying
from billing.models import LedgerTransaction, Posting, TopUp
from billing.providers.provider import PaymentArrived
from billing.providers.sandbox import payment_of
from billing.providers.stripe import STRIPE, lines_of
from catalog.money import NANO_PER_CENT
from tests import factories
from tests.billing.fake_stripe import FakeStripe
from tests.billing.paying import check_out, start
from tests.invariants import check_books

# What is charged most, and rates whose fee is hardly ever a whole number of cents.
_RATES = ["0.25", "0", "0.055", "0.3333", "0.0001", "0.1275"]
_ALL_CENTS = range(500, 10_001)
_SOME_CENTS = (500, 501, 502, 503, 599, 1_999, 3_333, 6_667, 9_998, 9_999, 10_000)


def quoted(cents: int, rate: str, **fields: Any) -> TopUp:
    """A top-up of that many cents of credit at that rate, which is not in the database."""
    agreed = topping_up.quote(credit_nanousd=cents * NANO_PER_CENT, fee_rate=Decimal(rate))
    return TopUp(
        credit_nanousd=agreed.credit_nanousd,
        fee_nanousd=agreed.fee_nanousd,
        total_nanousd=agreed.total_nanousd,
        fee_rate=Decimal(rate),
        **fields,
    )


def fee_of(cents: int, rate: str) -> int:
    """In cents, half up, in integers: what the page computes too."""
    return (cents * int(Decimal(rate) * 10_000) * 2 + 10_000) // 20_000


@pytest.mark.parametrize("rate", _RATES)
def test_every_amount_by_the_cent_is_asked_for_as_it_is_quoted(rate: str) -> None:
    for cents in _ALL_CENTS:
        topup, fee = quoted(cents, rate), fee_of(cents, rate)
        asked = [line["price_data"]["unit_amount"] for line in lines_of(topup)]
        assert asked == ([cents, fee] if fee else [cents])
        assert sum(asked) * NANO_PER_CENT == topup.total_nanousd
        assert topup.credit_nanousd == cents * NANO_PER_CENT


@pytest.mark.django_db
@pytest.mark.parametrize("rate", _RATES)
def test_every_amount_by_the_cent_is_in_the_ledger_as_it_is_charged(rate: str) -> None:
    account = factories.make_account()
    expected = []
    for first in range(0, len(_ALL_CENTS), 20):
        some = _ALL_CENTS[first : first + 20]
        legs = []
        for cents in some:
            topup = quoted(cents, rate, account=account, provider="stripe")
            legs += crediting.legs_of(topup)
            charged = sum(line["price_data"]["unit_amount"] for line in lines_of(topup))
            fee = fee_of(cents, rate)
            in_cents = [("cash_clearing", -charged), ("customer_credits", cents), ("fee_revenue", fee)]
            expected += [(kind, amount * NANO_PER_CENT) for kind, amount in in_cents if amount]
        ledger.post(
            reference=f"from {some[0]}",
            kind=LedgerTransaction.Kind.TOPUP,
            account=account,
            description="twenty top-ups",
            legs=legs,
            at=factories.now(),
        )
    posted = Posting.objects.order_by("pk").values_list("ledger_account__kind", "amount_nanousd")
    assert list(posted) == expected
    assert verifying.verify_chain().broken is None


@pytest.mark.django_db
@pytest.mark.parametrize("rate", _RATES)
def test_what_stripe_takes_is_what_the_ledger_holds(fake_stripe: FakeStripe, rate: str) -> None:
    Plan.objects.update(topup_fee_rate=Decimal(rate))
    for cents in _SOME_CENTS:
        topup = start(cents=cents)
        session = fake_stripe.pay(check_out(topup).session)
        # The operator changes the fee while the buyer is on the page.
        Plan.objects.update(topup_fee_rate=Decimal("0.5"))
        arrived = STRIPE.look_up(topup=topup)
        assert isinstance(arrived, PaymentArrived)
        paid = topping_up.take(provider="stripe", payment=arrived, at=factories.now())
        Plan.objects.update(topup_fee_rate=Decimal(rate))
        expected = quoted(cents, rate)
        posted = LedgerTransaction.objects.get(reference=f"topup:{paid.pk}").postings
        legs = dict(posted.values_list("ledger_account__kind", "amount_nanousd"))
        assert legs == {
            "cash_clearing": -session["amount_total"] * NANO_PER_CENT,
            "customer_credits": cents * NANO_PER_CENT,
            **({"fee_revenue": expected.fee_nanousd} if expected.fee_nanousd else {}),
        }
        assert session["amount_total"] * NANO_PER_CENT == expected.total_nanousd
    check_books(idle=True)


@pytest.mark.django_db
def test_many_amounts_of_one_account_are_booked_as_they_are_quoted() -> None:
    account = factories.make_account()
    # Every 29th has each of the endings of a cent.
    chosen = _ALL_CENTS[::29]
    for cents in chosen:
        topup = topping_up.start(
            account=account,
            actor=None,
            credit_nanousd=cents * NANO_PER_CENT,
            provider="sandbox",
            at=factories.now(),
        )
        topping_up.take(provider="sandbox", payment=payment_of(topup=topup), at=factories.now())
    totals = Posting.objects.values("ledger_account__kind").annotate(total=Sum("amount_nanousd"))
    fees = sum(quoted(cents, "0.25").fee_nanousd for cents in chosen)
    assert dict(totals.values_list("ledger_account__kind", "total")) == {
        "customer_credits": sum(chosen) * NANO_PER_CENT,
        "fee_revenue": fees,
        "cash_clearing": -(sum(chosen) * NANO_PER_CENT + fees),
    }
    check_books(idle=True)
