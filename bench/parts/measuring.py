"""One measurement: the load generator runs, and the processor times of everybody involved are read around it."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.parts import processes
from bench.parts.load import Findings, Orders
from config.home import ROOT


@dataclass(frozen=True, slots=True)
class Target:
    """What can be measured: where it answers, with which keys, and which processes do its work."""

    name: str
    url: str
    keys: list[str] = field(repr=False)
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The upstream that every target calls, and the cores on which it and the load generator run."""

    sandbox_pid: int
    cores: set[int]


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement.

    Busy is processor seconds a second; for `cores_busy`, the share of the load's cores that anybody uses. At a steady
    rate, `late_ms` is the median of how late a request was sent; its latency counts that too.
    """

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    late_ms: float
    load_busy: float
    cores_busy: float
    worker_busy: float


def pinned(surroundings_pid: int, measured: list[int]) -> Surroundings:
    """Give what is measured the first core, and the upstream and the load the second; else share what there is."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        return Surroundings(surroundings_pid, set(cores))
    for pid in measured:
        processes.pin(pid, {cores[0]})
    processes.pin(surroundings_pid, {cores[1]})
    return Surroundings(surroundings_pid, {cores[1]})


def measure(target: Target, surroundings: Surroundings, *, body: dict[str, Any], **how: Any) -> Cell:
    """Send the load that `how` says, in the words of `Orders`; every request must be answered with 200."""
    orders = Orders(
        url=f"{target.url}/v1/chat/completions",
        keys=target.keys,
        body=body,
        pids=[surroundings.sandbox_pid, *target.pids],
        cores=sorted(surroundings.cores),
        **how,
    )
    process = subprocess.run(
        [sys.executable, "-m", "bench.parts.load"],
        input=json.dumps(asdict(orders)),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        preexec_fn=lambda: os.sched_setaffinity(0, surroundings.cores),
    )
    found = Findings(**json.loads(process.stdout))
    assert not found.errors, f"{target.name}: {found.errors}"
    sandbox_s, *workers_s = found.pids_cpu_s
    return Cell(
        requests=found.requests,
        per_s=found.requests / found.elapsed_s,
        p50_ms=found.p50_s * 1000,
        p99_ms=found.p99_s * 1000,
        late_ms=found.late_p50_s * 1000,
        load_busy=(sandbox_s + found.cpu_s) / found.elapsed_s,
        cores_busy=found.cores_busy,
        worker_busy=sum(workers_s) / found.elapsed_s,
    )
