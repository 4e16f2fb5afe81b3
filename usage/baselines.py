"""How much an hour usually costs, and whether this one costs far more: robust statistics, no database.

The center is the median and the spread is the median absolute deviation (MAD), which a few wild hours among the
history cannot move. Times 1.4826 the MAD estimates the standard deviation of normally distributed values (Rousseeuw
and Croux, "Alternatives to the Median Absolute Deviation", 1993), so the factor below reads as a number of sigmas.
"""

import datetime as dt
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HISTORY_DAYS = 14
# An hour is compared with the same hour of earlier days and its neighbors: people do not keep to the full hour.
NEIGHBOR_HOURS = 1
# Fewer days on which anything was spent are no history to judge by.
MINIMUM_DAYS = 5
SIGMAS = 6
MAD_TO_SIGMA = 1.4826
# A perfectly regular history has a MAD of zero; then this share of the median stands for its spread.
LEAST_SPREAD_SHARE = 0.25
# Nobody is to be woken for cents.
MINIMUM_EXCESS_NANOUSD = 1_000_000_000
# What happened at this hour of this weekday in both of the last two weeks, give or take half, is a weekly rhythm.
WEEKLY_TOLERANCE = 1.5

_HOUR = dt.timedelta(hours=1)
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an hour is expected to cost, and above which amount it is a spike. In nano-USD."""

    expected_nanousd: int
    threshold_nanousd: int


def median_and_mad(samples: Sequence[int]) -> tuple[float, float]:
    """The median, and the median of the distances from it. Raises ValueError for no samples."""
    if not samples:
        msg = "no samples"
        raise ValueError(msg)
    center = statistics.median(samples)
    return center, statistics.median(abs(sample - center) for sample in samples)


def baseline(*, spent: Mapping[dt.datetime, int], hour: dt.datetime) -> Baseline | None:
    """The baseline of `hour` from what was spent in earlier hours (nano-USD by UTC hour; a missing hour is zero).

    Days before the first spend are not history. None: fewer than MINIMUM_DAYS days with any spend.
    """
    since = hour - HISTORY_DAYS * _DAY - NEIGHBOR_HOURS * _HOUR
    until = hour - _DAY + NEIGHBOR_HOURS * _HOUR
    history = {at: amount for at, amount in spent.items() if since <= at <= until and amount > 0}
    if len({at.date() for at in history}) < MINIMUM_DAYS:
        return None
    first = min(history).replace(hour=0)
    window = [
        at
        for days in range(1, HISTORY_DAYS + 1)
        for shift in range(-NEIGHBOR_HOURS, NEIGHBOR_HOURS + 1)
        if (at := hour - days * _DAY + shift * _HOUR) >= first
    ]
    center, mad = median_and_mad([history.get(at, 0) for at in window])
    spread = max(mad * MAD_TO_SIGMA, center * LEAST_SPREAD_SHARE)
    threshold = max(center + SIGMAS * spread, center + MINIMUM_EXCESS_NANOUSD, _weekly_rhythm(history, hour))
    return Baseline(expected_nanousd=round(center), threshold_nanousd=round(threshold))


def _weekly_rhythm(history: Mapping[dt.datetime, int], hour: dt.datetime) -> float:
    """What this hour of the week may cost by its two predecessors: zero unless both spent at it."""
    weeks = [
        max(
            history.get(hour - weeks * 7 * _DAY + shift * _HOUR, 0)
            for shift in range(-NEIGHBOR_HOURS, NEIGHBOR_HOURS + 1)
        )
        for weeks in (1, 2)
    ]
    return min(weeks) * WEEKLY_TOLERANCE
