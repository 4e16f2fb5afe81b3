"""The rounds of `bench gateway`, and ratios taken within them."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.parts.measuring import Cell


@dataclass(frozen=True, slots=True)
class Round:
    """Every measurement once.

    `cells` are by target, concurrency and whether it was streamed. `steady` are by target, plain, at 16 connections
    and half of the rate that the same target reached at 16 just before.
    """

    cells: dict[tuple[str, int, bool], Cell] = field(default_factory=dict)
    steady: dict[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median over the rounds of a ratio taken in each, and the lowest and highest of them."""

    median: float
    lowest: float
    highest: float


def median(rounds: Sequence[Round], figure: Callable[[Round], float]) -> float:
    """The median of a figure over the rounds."""
    return statistics.median(map(figure, rounds))


def ratio(rounds: Sequence[Round], of: Callable[[Round], float], to: Callable[[Round], float]) -> Ratio:
    """Two figures of a round are neighbors in time: what slows the machine for a while slows both."""
    found = [of(measured) / to(measured) for measured in rounds]
    return Ratio(statistics.median(found), min(found), max(found))
