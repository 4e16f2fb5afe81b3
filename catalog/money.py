"""Amounts of money: integers of nano-USD (10⁻⁹ USD), so that a token's price is exact and a sum never drifts."""

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import NewType

NanoUSD = NewType("NanoUSD", int)

NANO_PER_USD = 1_000_000_000
NANO_PER_CENT = 10_000_000


def nano_from_usd(usd: Decimal) -> NanoUSD:
    """An exact amount of USD in nano-USD. Raises ValueError where USD has more than nine decimals."""
    nano = usd * NANO_PER_USD
    if nano != nano.to_integral_value():
        msg = f"{usd} USD is not a whole number of nano-USD"
        raise ValueError(msg)
    return NanoUSD(int(nano))


def usd_from_nano(amount_nanousd: int) -> Decimal:
    """The amount in USD, with nine decimals: 1_500_000_000 → Decimal('1.500000000')."""
    return Decimal(amount_nanousd).scaleb(-9)


def usd_string(amount_nanousd: int) -> str:
    """The exact amount in USD as a plain decimal string, as receipts carry it: '0.000012500'."""
    sign = "-" if amount_nanousd < 0 else ""
    whole, nano = divmod(abs(amount_nanousd), NANO_PER_USD)
    return f"{sign}{whole}.{nano:09d}"


def usd_text(amount_nanousd: int) -> str:
    """An amount to read: whole cents as $12.34; a smaller one with as many decimals as it needs, $0.0000125."""
    sign, amount = ("-", -amount_nanousd) if amount_nanousd < 0 else ("", amount_nanousd)
    if amount % NANO_PER_CENT == 0:
        return f"{sign}${usd_from_nano(amount):,.2f}"
    whole, _point, decimals = f"{usd_from_nano(amount):,.9f}".partition(".")
    return f"{sign}${whole}.{decimals.rstrip('0'):0<2}"


def whole_cents(amount_nanousd: Decimal) -> NanoUSD:
    """Round to a whole cent, half up: what a card can be charged."""
    return NanoUSD(int((amount_nanousd / NANO_PER_CENT).quantize(Decimal(1), ROUND_HALF_UP)) * NANO_PER_CENT)


def decimal_or_nan(text: str) -> Decimal:
    """A number as somebody has written it in a setting; NaN, which every check refuses, where it is none."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")
