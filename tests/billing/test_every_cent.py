"""No cent is lost or made on the way: what is quoted is what Stripe is asked for, and what the ledger holds."""

from decimal import Decimal

import pytest
from django.db.models import Sum

from accounts.models import Plan
from billing import topping_up
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


def quoted(cents: int, rate: str) -> TopUp:
    """A top-up of that many cents of credit at that rate, which is not in the database."""
    agreed = topping_up.quote(credit_nanousd=cents * NANO_PER_CENT, fee_rate=Decimal(rate))
    return TopUp(
        credit_nanousd=agreed.credit_nanousd,
        fee_nanousd=agreed.fee_nanousd,
        total_nanousd=agreed.total_nanousd,
        fee_rate=Decimal(rate),
    )


@pytest.mark.parametrize("rate", _RATES)
def test_every_amount_by_the_cent_is_asked_for_as_it_is_quoted(rate: str) -> None:
    ten_thousandths = int(Decimal(rate) * 10_000)
    for cents in _ALL_CENTS:
        topup = quoted(cents, rate)
        # Half up to a whole cent, in integers: what the page computes too.
        fee = (cents * ten_thousandths * 2 + 10_000) // 20_000
        asked = [line["price_data"]["unit_amount"] for line in lines_of(topup)]
        assert asked == ([cents, fee] if fee else [cents])
        assert sum(asked) * NANO_PER_CENT == topup.total_nanousd
        assert topup.credit_nanousd == cents * NANO_PER_CENT


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
    # Every 29th has each of the endings of a cent, and all 9,501 would take minutes.
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
