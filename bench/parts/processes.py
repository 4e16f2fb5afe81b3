"""Other processes: which cores they may use, what they have used, and how they are started for a while."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from config.home import ROOT
from config.listening import listen

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 20.0
_LAST_WORDS = 1_500


class DidNotStart(Exception):
    """A process ended, or did not answer in time; the message has the end of what it printed."""


def pin(pid: int, cores: set[int]) -> None:
    """Let every thread of the process run on these cores only."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


def cpu_s(pid: int) -> float:
    """Seconds of processor time that the process has used in its life."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Memory of the process that is in RAM, shared pages included; counted page by page, so exact."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the second may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


# --- The machine -------------------------------------------------------------------------------------------


def core_times(cores: set[int]) -> tuple[int, int]:
    """Busy and idle ticks of these cores since the machine started, whoever used them."""
    busy, idle = 0, 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu" and int(name.removeprefix("cpu")) in cores:
            user, nice, system, resting, waiting, *others = map(int, fields[:8])
            busy += user + nice + system + sum(others)
            idle += resting + waiting
    return busy, idle


def share(before: tuple[int, int], after: tuple[int, int]) -> float:
    """The busy share between two looks at `core_times`."""
    busy, idle = after[0] - before[0], after[1] - before[1]
    return busy / max(busy + idle, 1)


def busy_share(seconds: float) -> float:
    """Of all cores together, the share that anybody at all uses while we sleep for so long."""
    cores = set(range(os.cpu_count() or 1))
    before = core_times(cores)
    time.sleep(seconds)
    return share(before, core_times(cores))


# --- Servers -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(
    command: Sequence[str],
    *,
    health: str,
    environ: Mapping[str, str],
    inherited: socket.socket | None = None,
    patience_s: float = _PATIENCE_S,
) -> Iterator[int]:
    """A server that runs for as long as the block; yields its process id once `health` answers 200.

    Raises:
        DidNotStart: it ended, or did not answer in time.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            env=dict(environ),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[inherited.fileno()] if inherited else [],
        )
        try:
            if not _answers(health, process, patience_s):
                output.seek(0)
                words = output.read().decode(errors="replace")[-_LAST_WORDS:].strip()
                raise DidNotStart(f"{Path(command[0]).name} did not start: {words}")
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def uvicorn(
    application: str, *, environ: Mapping[str, str], http: str = "httptools", health: str = "/health"
) -> Iterator[tuple[str, int]]:
    """An ASGI application under uvicorn, as fast as it goes; yields its address and process id."""
    quiet = ["--no-access-log", "--log-level", "warning", "--no-server-header", "--no-proxy-headers"]
    with listen("127.0.0.1", 0) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        place = ["--fd", str(listener.fileno()), "--loop", "uvloop", "--http", http]
        command = [sys.executable, "-m", "uvicorn", application, *place, *quiet]
        with server(
            command, health=f"{address}{health}", environ={**os.environ, **environ}, inherited=listener
        ) as pid:
            yield address, pid


def free_port() -> int:
    """A port that nobody listens on just now."""
    with listen("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


def _answers(health: str, process: "subprocess.Popen[bytes]", patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5):  # noqa: S310 - our own
            return True
        time.sleep(0.05)
    return False
