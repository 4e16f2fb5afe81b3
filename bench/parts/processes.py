"""Other processes: which cores they may use, how much of them they have used, and one uvicorn more."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from config.home import ROOT
from config.listening import listen

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 20.0


def pin(pid: int, cores: set[int]) -> None:
    """Let every thread of the process run on these cores only."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


def cpu_s(pid: int) -> float:
    """Seconds of processor time that the process has used in its life."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def busy_share(seconds: float) -> float:
    """Of all cores together, the share that anybody at all uses while we sleep for so long."""
    busy, idle = _machine_times()
    time.sleep(seconds)
    busy_after, idle_after = _machine_times()
    return (busy_after - busy) / max(busy_after - busy + idle_after - idle, 1)


def _machine_times() -> tuple[int, int]:
    user, nice, system, idle, waiting, *others = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return user + nice + system + sum(others), idle + waiting


@contextlib.contextmanager
def uvicorn(application: str, *, environ: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """An ASGI application under the same uvicorn options as Tollgate's own; yields its address and process id."""
    with listen("127.0.0.1", 0) as listener:
        options = [
            "--fd",
            str(listener.fileno()),
            "--loop",
            "uvloop",
            "--http",
            "config.http_protocol:StrictHttpProtocol",
            "--no-access-log",
        ]
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "uvicorn",
                application,
                *options,
                "--log-level",
                "warning",
                "--no-server-header",
            ],
            env={**os.environ, **environ},
            cwd=ROOT,
            pass_fds=[listener.fileno()],
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        _wait_for(url, process)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310 - our own
            return
        time.sleep(0.05)
    raise RuntimeError("uvicorn did not start")
