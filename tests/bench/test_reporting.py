"""What the benchmarks write: ratios within rounds, verdicts, and sections that leave each other alone."""

import itertools

import pytest

from bench.parts import page, report
from bench.parts.figures import figures
from bench.parts.measuring import Cell
from bench.parts.rounds import Round, ratio
from bench.parts.stages import Sampled, by_stage, stage_of
from bench.parts.targets import LITELLM, NGINX, PASSTHROUGH, TOLLGATE, UPSTREAM


def _cell(
    per_s: float = 1_000.0, *, p50_ms: float = 1.0, p99_ms: float = 2.0, load_busy: float = 0.5
) -> Cell:
    return Cell(
        requests=100,
        per_s=per_s,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        late_ms=0.0,
        load_busy=load_busy,
        cores_busy=0.5,
        worker_busy=0.5,
    )


def _round(cells: dict[str, Cell], *, steady: Cell | None = None) -> Round:
    """The same cell of a target at every concurrency, plain and streamed."""
    measured = Round(steady={TOLLGATE: steady or _cell(), PASSTHROUGH: _cell()})
    for target, concurrency, is_streamed in itertools.product(cells, (1, 16, 64), (False, True)):
        measured.cells[target, concurrency, is_streamed] = cells[target]
    return measured


_OTHERS = {UPSTREAM: _cell(9_000, p50_ms=0.1), PASSTHROUGH: _cell(2_000)}


def test_a_ratio_is_taken_within_each_round_before_the_median() -> None:
    """The machine halves its speed for the second round: both slow down, and their ratio stays."""
    rounds = [
        _round({TOLLGATE: _cell(mine), PASSTHROUGH: _cell(its)})
        for mine, its in ((500, 1_000), (250, 500), (600, 1_000))
    ]

    found = ratio(
        rounds,
        lambda measured: measured.cells[TOLLGATE, 16, False].per_s,
        lambda measured: measured.cells[PASSTHROUGH, 16, False].per_s,
    )

    assert (found.median, found.lowest, found.highest) == (0.5, 0.5, 0.6)


def test_each_figure_says_whether_it_was_reached() -> None:
    cells = {**_OTHERS, TOLLGATE: _cell(1_000, p50_ms=1.1), LITELLM: _cell(60, p50_ms=10.1)}

    rows = figures([_round(cells, steady=_cell(p50_ms=2.0, p99_ms=9.0))]).splitlines()[2:]

    verdicts = [(row.split(" | ")[2], row.split(" | ")[4].rstrip(" |")) for row in rows]
    assert verdicts == [
        ("**16.7x**", "**no**"),
        ("**16.7x**", "yes"),
        ("**50%**", "yes"),
        ("**50%**", "yes"),
        ("**50%**", "**no**"),
        ("**1/10.0**", "yes"),
        ("**4.5x**", "**no**"),
    ]


def test_without_the_peer_its_figures_are_not_measured() -> None:
    rows = figures([_round({**_OTHERS, TOLLGATE: _cell()})]).splitlines()[2:]

    assert ["not measured" in row for row in rows] == [True, True, False, False, False, True, False]


def test_the_section_names_who_ran_and_whom_the_load_could_not_exhaust() -> None:
    cells = {**_OTHERS, NGINX: _cell(8_000, load_busy=0.95), TOLLGATE: _cell()}

    text = report.write(
        [_round(cells)],
        provenance="`./tollgate bench gateway`",
        seconds=3.0,
        is_pinned=True,
        notes=["LiteLLM is left out: it could not be installed."],
        audit=["The books agree"],
    )

    assert "- **nginx**" in text
    assert "- **LiteLLM**" not in text
    assert "- LiteLLM is left out" in text
    assert "nginx at 1, nginx at 1 streamed, nginx at 16" in text
    assert "| 16 | Tollgate | 1,000 | 50% | 11% |" in text


def test_a_benchmark_replaces_its_own_section_and_nothing_else() -> None:
    old = page.placed(page.placed("# Performance\n\nBy hand.\n", "gateway", "old"), "memory", "kept")

    new = page.placed(old, "gateway", "new \\1")

    assert "old" not in new
    assert new.index("By hand.") < new.index("new \\1") < new.index("kept")
    assert new == page.placed(new, "gateway", "new \\1")


@pytest.mark.parametrize(
    ("thread", "stack", "stage"),
    [
        ("MainThread", ["asyncio.runners", "uvicorn.server"], "event loop"),
        ("MainThread", ["hmac", "keys.secrets", "gateway.credentials", "uvicorn.protocols"], "credentials"),
        ("MainThread", ["aiohttp.client", "gateway.forwarding", "gateway.completing"], "forwarding"),
        ("MainThread", ["uvicorn.protocols", "gateway.completing", "uvicorn.protocols"], "edge"),
        ("MainThread", ["uuid", "gateway.completing", "uvicorn.protocols"], "walk"),
        ("MainThread", ["orjson", "gateway.naming", "uvicorn.protocols"], "`gateway.naming`"),
        ("gateway-reader_0", ["psycopg.connection"], "readers' threads"),
    ],
)
def test_a_sample_belongs_to_the_innermost_stage(thread: str, stack: list[str], stage: str) -> None:
    assert stage_of(thread, stack) == stage


def test_the_shares_of_a_profile_add_up() -> None:
    samples: list[tuple[str, list[str], float]] = [
        ("MainThread", ["asyncio.runners"], 0.3),
        ("MainThread", ["psycopg.pq", "gateway.postgres_pipe"], 0.699),
        ("MainThread", ["gateway.metering"], 0.001),
    ]
    sampled = Sampled(stacks=samples, requests=1_000, busy=1.0)

    shares = [row.split(" | ")[0:4:2] for row in by_stage(sampled, sampled).splitlines()[2:]]

    assert shares == [
        ["| teller", "69.9%"],
        ["| event loop", "30.0%"],
        ["| less than 0.5% each", "0.1%"],
        ["| **All**", "100.0%"],
    ]
