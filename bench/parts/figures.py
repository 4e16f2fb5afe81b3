"""The figures that Tollgate is to reach, each a ratio of one run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.parts.page import table
from bench.parts.rounds import Ratio, Round, ratio
from bench.parts.targets import LITELLM, PASSTHROUGH, TOLLGATE, UPSTREAM


@dataclass(frozen=True, slots=True)
class _Figure:
    """What is compared, and the bound: the least that will do, or the most where `is_at_most`."""

    name: str
    bound: float
    write: Callable[[float], str]
    of: Callable[[Round], float]
    to: Callable[[Round], float]
    peer: str = ""
    is_at_most: bool = False

    def is_reached(self, found: Ratio) -> bool:
        return found.median <= self.bound if self.is_at_most else found.median >= self.bound


def _per_s(target: str, concurrency: int, *, is_streamed: bool = False) -> Callable[[Round], float]:
    return lambda measured: measured.cells[target, concurrency, is_streamed].per_s


def _added_ms(target: str) -> Callable[[Round], float]:
    def added(measured: Round) -> float:
        return measured.cells[target, 1, False].p50_ms - measured.cells[UPSTREAM, 1, False].p50_ms

    return added


def _times(value: float) -> str:
    return f"{value:.1f}x"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _part(value: float) -> str:
    return f"1/{1 / value:.1f}" if value > 0 else "none"


_FIGURES = (
    *(
        _Figure(
            name=f"requests a second against LiteLLM's proxy, plain, concurrency {concurrency}",
            bound=bound,
            write=_times,
            of=_per_s(TOLLGATE, concurrency),
            to=_per_s(LITELLM, concurrency),
            peer=LITELLM,
        )
        for concurrency, bound in ((64, 20.0), (16, 12.0))
    ),
    *(
        _Figure(
            name=f"requests a second against the bare pass-through, plain, concurrency {concurrency}",
            bound=bound,
            write=_percent,
            of=_per_s(TOLLGATE, concurrency),
            to=_per_s(PASSTHROUGH, concurrency),
        )
        for concurrency, bound in ((64, 0.45), (16, 0.35))
    ),
    _Figure(
        name="streams a second (50 chunks) against the bare pass-through, concurrency 16",
        bound=0.6,
        write=_percent,
        of=_per_s(TOLLGATE, 16, is_streamed=True),
        to=_per_s(PASSTHROUGH, 16, is_streamed=True),
    ),
    _Figure(
        name="time added at concurrency 1 (p50 over the upstream directly), against LiteLLM's",
        bound=0.2,
        write=_part,
        of=_added_ms(TOLLGATE),
        to=_added_ms(LITELLM),
        peer=LITELLM,
        is_at_most=True,
    ),
    _Figure(
        name="p99 at concurrency 16 under a steady half of the maximum rate, against its p50",
        bound=4.0,
        write=_times,
        of=lambda measured: measured.steady[TOLLGATE].p99_ms,
        to=lambda measured: measured.steady[TOLLGATE].p50_ms,
        is_at_most=True,
    ),
)


def figures(rounds: Sequence[Round]) -> str:
    """The table of them. What needs a peer that was not there is not measured."""
    rows = []
    for figure in _FIGURES:
        target = f"{'≤' if figure.is_at_most else '≥'} {figure.write(figure.bound)}"
        if figure.peer and (figure.peer, 1, False) not in rounds[0].cells:
            rows.append([figure.name, target, "not measured", "", ""])
            continue
        found = ratio(rounds, figure.of, figure.to)
        spread = sorted((found.lowest, found.highest), reverse=figure.write is _part)
        rows.append(
            [
                figure.name,
                target,
                f"**{figure.write(found.median)}**",
                f"{figure.write(spread[0])} to {figure.write(spread[1])}",
                "yes" if figure.is_reached(found) else "**no**",
            ]
        )
    return table(("Figure", "Target", "Measured", "Rounds from … to", "Reached"), rows)
