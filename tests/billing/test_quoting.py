"""What an amount of credit costs: exact to the cent, for every cent."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from billing import topping_up
from catalog.money import NANO_PER_CENT


@pytest.mark.parametrize(
    ("credit", "fee"),
    # A cent is 0.01 · 10⁹ nano-USD; 25 % of 5.02 is 1.255, and half a cent is charged as a whole one.
    [(500, 125), (2000, 500), (10000, 2500), (501, 125), (502, 126), (503, 126)],
)
def test_the_fee_is_a_quarter_of_the_credit_rounded_half_up(credit: int, fee: int) -> None:
    quote = topping_up.quote(credit_nanousd=credit * NANO_PER_CENT, fee_rate=Decimal("0.25"))
    assert quote == topping_up.Quote(
        credit * NANO_PER_CENT, fee * NANO_PER_CENT, (credit + fee) * NANO_PER_CENT, Decimal("0.25")
    )


@pytest.mark.parametrize("rate", ["0.25", "0", "0.0001", "0.0333", "0.055", "0.1999", "0.9999", "9.9999"])
def test_every_cent_from_5_to_100_dollars_is_quoted_exactly(rate: str) -> None:
    ten_thousandths = int(Decimal(rate) * 10_000)
    for cents in range(500, 10_001):
        quote = topping_up.quote(credit_nanousd=cents * NANO_PER_CENT, fee_rate=Decimal(rate))
        fee_cents = (2 * cents * ten_thousandths + 10_000) // 20_000
        assert quote.fee_nanousd == fee_cents * NANO_PER_CENT
        assert quote.total_nanousd == quote.credit_nanousd + quote.fee_nanousd


@given(
    cents=st.integers(min_value=500, max_value=1_000_000),
    rate=st.decimals(min_value=0, max_value=Decimal("9.9999"), places=4),
)
def test_a_quote_is_always_in_whole_cents_and_adds_up(cents: int, rate: Decimal) -> None:
    quote = topping_up.quote(credit_nanousd=cents * NANO_PER_CENT, fee_rate=rate)
    assert quote.fee_nanousd % NANO_PER_CENT == quote.total_nanousd % NANO_PER_CENT == 0
    assert quote.credit_nanousd + quote.fee_nanousd == quote.total_nanousd
    assert abs(quote.fee_nanousd - quote.credit_nanousd * rate) <= NANO_PER_CENT // 2


@pytest.mark.parametrize("cents", [499, 1_000_001, 0, -500])
def test_an_amount_outside_the_limits_is_not_offered(cents: int) -> None:
    with pytest.raises(topping_up.AmountNotOffered, match=r"from \$5\.00 to \$10,000\.00"):
        topping_up.quote(credit_nanousd=cents * NANO_PER_CENT, fee_rate=Decimal("0.25"))


def test_part_of_a_cent_is_not_offered() -> None:
    with pytest.raises(topping_up.AmountNotOffered, match="whole cents"):
        topping_up.quote(credit_nanousd=5_000_000_001, fee_rate=Decimal("0.25"))


def test_the_limits_are_the_operators(settings: Settings) -> None:
    settings.TOPUP_MINIMUM_USD, settings.TOPUP_MAXIMUM_USD = Decimal(1), Decimal(2)
    assert topping_up.quote(credit_nanousd=10**9, fee_rate=Decimal(0)).total_nanousd == 10**9
    with pytest.raises(topping_up.AmountNotOffered, match=r"from \$1\.00 to \$2\.00"):
        topping_up.quote(credit_nanousd=5 * 10**9, fee_rate=Decimal(0))
