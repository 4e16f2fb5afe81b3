"""The statistics of a baseline, without a database."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage.baselines import MINIMUM_EXCESS_NANOUSD, baseline, median_and_mad

HOUR = dt.datetime(2026, 3, 18, 14, tzinfo=dt.UTC)  # a Wednesday
USD = 1_000_000_000


def history(amounts: dict[int, int]) -> dict[dt.datetime, int]:
    """Nano-USD by days before HOUR, at its hour."""
    return {HOUR - dt.timedelta(days=days): amount for days, amount in amounts.items()}


def around_the_hour(amounts: dict[int, int]) -> dict[dt.datetime, int]:
    """The same in the neighboring hours too: steady traffic."""
    return {
        HOUR - dt.timedelta(days=days, hours=shift): amount
        for days, amount in amounts.items()
        for shift in (-1, 0, 1)
    }


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([5], (5, 0)),
        ([1, 3], (2, 1)),
        ([7, 7, 7, 7], (7, 0)),
        ([1, 1, 2, 2, 4, 6, 9], (2, 1)),
        ([0, 0, 0, 0, 1000], (0, 0)),
        ([2**60, 2**60, 2**60 + 2], (2**60, 0)),
    ],
)
def test_median_and_mad_are_the_textbook_ones(samples: list[int], expected: tuple[int, int]) -> None:
    assert median_and_mad(samples) == expected


def test_there_is_no_median_of_nothing() -> None:
    with pytest.raises(ValueError, match="no samples"):
        median_and_mad([])


@given(st.lists(st.integers(0, 10**12), min_size=3, max_size=42), st.integers(0, 10**15))
def test_one_wild_sample_cannot_pull_the_median_out_of_the_others(samples: list[int], wild: int) -> None:
    center, _mad = median_and_mad([*samples, wild])
    assert min(samples) <= center <= max(samples)


def test_fewer_than_five_days_with_spend_are_no_baseline() -> None:
    assert baseline(spent={}, hour=HOUR) is None
    assert baseline(spent=history(dict.fromkeys((1, 2, 3, 4), USD)), hour=HOUR) is None
    assert baseline(spent=history(dict.fromkeys((1, 2, 3, 4, 5), USD)), hour=HOUR) is not None


def test_days_before_the_first_spend_are_not_history() -> None:
    steady = around_the_hour(dict.fromkeys(range(1, 6), 10 * USD))
    found = baseline(spent=steady, hour=HOUR)
    assert found is not None
    assert found.expected_nanousd == 10 * USD


def test_the_hour_itself_and_what_is_older_than_two_weeks_do_not_count() -> None:
    spent = around_the_hour(dict.fromkeys(range(1, 15), 10 * USD))
    spent |= {
        HOUR: 900 * USD,
        HOUR - dt.timedelta(hours=1): 900 * USD,
        HOUR - dt.timedelta(days=15): 900 * USD,
    }
    found = baseline(spent=spent, hour=HOUR)
    assert found is not None
    assert found.expected_nanousd == 10 * USD


def test_a_perfectly_regular_history_still_leaves_room() -> None:
    found = baseline(spent=around_the_hour(dict.fromkeys(range(1, 15), 10 * USD)), hour=HOUR)
    assert found is not None
    # A MAD of zero stands for a quarter of the median: 10 + 6 * 2.5.
    assert found.threshold_nanousd == 25 * USD


def test_a_silent_hour_of_the_day_needs_the_least_excess() -> None:
    elsewhere = {HOUR - dt.timedelta(days=days, hours=8): 3 * USD for days in range(1, 15)}
    found = baseline(spent=elsewhere, hour=HOUR)
    assert found is not None
    assert (found.expected_nanousd, found.threshold_nanousd) == (0, MINIMUM_EXCESS_NANOUSD)


def test_two_wild_days_do_not_hide_a_third() -> None:
    amounts = {**dict.fromkeys(range(1, 15), 10 * USD), 3: 500 * USD, 9: 400 * USD}
    found = baseline(spent=around_the_hour(amounts), hour=HOUR)
    assert found is not None
    assert found.threshold_nanousd == 25 * USD


def test_steady_growth_stays_below_its_threshold() -> None:
    spent = around_the_hour({days: int(10 * USD * 1.05**-days) for days in range(1, 15)})
    found = baseline(spent=spent, hour=HOUR)
    assert found is not None
    assert found.threshold_nanousd > 10 * USD


def test_a_weekly_job_is_expected_once_it_ran_in_both_weeks() -> None:
    other_days = {HOUR - dt.timedelta(days=days, hours=8): USD for days in range(1, 15)}
    twice = baseline(spent=other_days | history({7: 50 * USD, 14: 50 * USD}), hour=HOUR)
    once = baseline(spent=other_days | history({7: 50 * USD}), hour=HOUR)
    assert twice is not None
    assert once is not None
    assert twice.threshold_nanousd == 75 * USD
    assert once.threshold_nanousd == MINIMUM_EXCESS_NANOUSD
