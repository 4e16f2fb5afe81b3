"""`./tollgate bench gateway`: the sandbox upstream, a bare pass-through, and Tollgate, in one interleaved run.

Tollgate runs as `./tollgate up` starts it, in a folder of its own: one web process, real PostgreSQL with durable
commits, real Redis, and every stage of a request on. The account pays from credits and its limits are too high to
refuse. Needs Linux, for pinning processes to cores.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.parts import processes
from bench.parts.load import WARM_UP_S, Findings, Orders
from bench.parts.report import Cell, Round, write
from config.home import ROOT
from tests.instance import Instance, installed

CONCURRENCIES = (1, 16, 64)
TARGETS = ("upstream", "pass-through", "Tollgate")
# A premium model: every request holds credit, settles, and writes its usage.
MODEL = "glm-5"
STREAMED_CHUNKS = 50
_EMAIL = "bench@tollgate.invalid"
_SET_UP = """
from accounts.models import Plan
Plan.objects.update_or_create(slug="bench", defaults=dict(
    name="Bench", requests_per_minute=2_000_000_000, tokens_per_minute=2_000_000_000, requests_per_day=7_200,
    tokens_per_day=200_000, max_input_characters=None, premium_models=True, spends_credits=True))
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """The three targets, running: where each answers, and which processes work for it."""

    urls: dict[str, str]
    workers: dict[str, list[int]]
    sandbox_pid: int
    key: str = field(repr=False)
    load_cores: set[int]


def main() -> None:
    """Measure and write the report."""
    options = _options()
    is_pinned = len(os.sched_getaffinity(0)) > 1
    rounds: list[Round] = []
    # Between rounds nothing of ours has work to do: what is busy then is somebody else.
    others_busy: list[float] = []
    with _running(pinned=is_pinned) as (bench, instance):
        for number in range(options.rounds):
            others_busy.append(processes.busy_share(1.0))
            rounds.append(_round(bench, seconds=options.seconds))
            print(f"round {number + 1} of {options.rounds} done", flush=True)
        audit = instance.manage("audit_ledger", check=True).stdout.strip().splitlines()
    report = write(
        rounds,
        seconds=options.seconds,
        is_pinned=is_pinned,
        others_busy=statistics.median(others_busy),
        audit=audit,
    )
    print(report)
    if options.output:
        options.output.write_text(report)
        print(f"written to {options.output}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./tollgate bench gateway", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of every measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="of each measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, help="where to write (default: docs/performance.md; --quick: nowhere)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round, to see that the bench itself works"
    )
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.5
    elif options.output is None:
        options.output = ROOT / "docs" / "performance.md"
    return options


@contextlib.contextmanager
def _running(*, pinned: bool) -> Iterator[tuple[Bench, Instance]]:
    """Start everything. Pinned: what is measured gets one core, the upstream and the load another one."""
    with installed(is_fresh=True) as instance:
        instance.start()
        instance.manage("shell", "-v", "0", "-c", _SET_UP, check=True)
        instance.manage("create_account", _EMAIL, "--plan", "bench", "--credit", "100000", check=True)
        key = instance.manage("issue_key", _EMAIL, "bench", check=True).stdout.strip()
        upstream = instance.env()["SANDBOX_UPSTREAM_URL"].removesuffix("/v1")
        variables = {"PASSTHROUGH_UPSTREAM": upstream}
        with processes.uvicorn("bench.parts.passthrough:app", environ=variables) as (
            passthrough,
            passthrough_pid,
        ):
            web, (sandbox,) = instance.pids()["web"], instance.pids()["sandbox"]
            bench = Bench(
                urls=dict(zip(TARGETS, (upstream, passthrough, instance.url), strict=True)),
                workers={"upstream": [], "pass-through": [passthrough_pid], "Tollgate": web},
                sandbox_pid=sandbox,
                key=key,
                load_cores=_pin([*web, passthrough_pid], sandbox) if pinned else os.sched_getaffinity(0),
            )
            yield bench, instance


def _pin(measured: list[int], sandbox: int) -> set[int]:
    first, second, *_others = sorted(os.sched_getaffinity(0))
    for pid in measured:
        processes.pin(pid, {first})
    processes.pin(sandbox, {second})
    return {second}


def _round(bench: Bench, *, seconds: float) -> Round:
    """Every cell once. The targets come in random order, so that none always profits from what ran before it."""
    measured: Round = {}
    for is_streamed in (False, True):
        for concurrency in CONCURRENCIES:
            for target in random.sample(TARGETS, len(TARGETS)):
                cell = _measure(
                    bench, target, concurrency=concurrency, is_streamed=is_streamed, seconds=seconds
                )
                measured[target, concurrency, is_streamed] = cell
    return measured


def _measure(bench: Bench, target: str, *, concurrency: int, is_streamed: bool, seconds: float) -> Cell:
    orders = Orders(
        url=f"{bench.urls[target]}/v1/chat/completions".replace("//localhost", "//127.0.0.1"),
        key=bench.key,
        body=_body(is_streamed=is_streamed),
        concurrency=concurrency,
        seconds=seconds,
    )
    workers = bench.workers[target]
    before = [processes.cpu_s(pid) for pid in (bench.sandbox_pid, *workers)]
    process = subprocess.run(
        [sys.executable, "-m", "bench.parts.load"],
        input=json.dumps(asdict(orders)),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        preexec_fn=lambda: os.sched_setaffinity(0, bench.load_cores),
    )
    used = [
        processes.cpu_s(pid) - past for pid, past in zip((bench.sandbox_pid, *workers), before, strict=True)
    ]
    found = Findings(**json.loads(process.stdout))
    assert not found.errors, f"{target}: {found.errors}"
    # The processes' times have the warm-up in them, the generator's own has not.
    whole_s = found.elapsed_s + WARM_UP_S
    return Cell(
        per_s=found.requests / found.elapsed_s,
        p50_ms=found.p50_s * 1000,
        p99_ms=found.p99_s * 1000,
        load_busy=used[0] / whole_s + found.cpu_s / found.elapsed_s,
        worker_busy=sum(used[1:]) / whole_s,
    )


def _body(*, is_streamed: bool) -> dict[str, object]:
    messages = [{"role": "user", "content": "Say something about toll gates, in a sentence or two."}]
    body: dict[str, object] = {"model": MODEL, "messages": messages, "max_tokens": 100}
    if is_streamed:
        # A delay of zero makes every chunk a write of its own, as a model's are.
        return body | {"stream": True, "sandbox": {"output_tokens": STREAMED_CHUNKS, "chunk_delay_ms": 0}}
    return body


if __name__ == "__main__":
    main()
