"""Amounts as pages write them: exact always, and readable."""

import pytest

from config.templatetags.console import usd, usd_large


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (0, "$0.00"),
        (12_340_000_000, "$12.34"),
        (1_234_567_000_000_000, "$1,234,567.00"),
        (12_500, "$0.0000125"),
        (1, "$0.000000001"),
        (-1_500_000_000, "-$1.50"),
        (147_506_459_870, "$147.50645987"),
        (None, "-"),
    ],
)
def test_an_amount_is_written_exactly_and_no_longer_than_it_must_be(amount: int | None, written: str) -> None:
    assert usd(amount) == written


def test_in_large_figures_what_is_finer_than_a_cent_is_small() -> None:
    assert usd_large(147_506_459_870) == '$147.50<span class="usd-finer">645987</span>'
    assert usd_large(20_000_000_000) == "$20.00"
    assert usd_large(None) == "-"
