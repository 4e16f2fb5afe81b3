"""Processes that live and die with the one that starts them. Standard library only."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from config.home import ROOT
from config.privileges import OURSELVES, Privileges, tethered

_LARGEST_LOG_BYTES = 5_000_000
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
# Whoever lived this long before dying was not failing to start.
_SETTLED_AFTER_S = 30.0
_POLL_S = 0.02


class Child:
    """One supervised process: its command, its log file, and when it may be started again after dying."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        death_signal: int = signal.SIGKILL,
        privileges: Privileges = OURSELVES,
        inherited_descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._death_signal = death_signal
        self._privileges = privileges
        self._inherited_descriptors = tuple(inherited_descriptors)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._delay_s = 0.0
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def is_running(self) -> bool:
        """Whether the process exists and has not ended."""
        return self.pid is not None

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: by that signal); None while it runs or was never started."""
        return self._process.poll() if self._process else None

    @property
    def wait_before_restart_s(self) -> float:
        """Seconds until a process that died may be started again: 0.2, doubling up to 5 while it keeps dying."""
        return max(0.0, self._started_at + self._delay_s - time.monotonic())

    def start(self, environ: Mapping[str, str]) -> None:
        """Start the process, in a session of its own, so that Ctrl-C reaches us alone and we end things in order."""
        now = time.monotonic()
        is_failing = self._process is not None and now - self._started_at < _SETTLED_AFTER_S
        self._delay_s = min(_LONGEST_DELAY_S, 2 * self._delay_s) if is_failing else _FIRST_DELAY_S
        self._started_at = now
        self._end_descendants()
        rotate(self.log)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                tethered(self._command, death_signal=self._death_signal, privileges=self._privileges),
                cwd=ROOT,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self._inherited_descriptors,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        """Send a signal, if there is still somebody to get it."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it and what it started, now."""
        self.signal(signal.SIGKILL)
        self._end_descendants()
        if self._process:
            self._process.wait()

    def last_words(self, lines: int = 20) -> str:
        """The end of its log, as far as it was written since the last start."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _end_descendants(self) -> None:
        """Each child leads a session, hence a process group; whoever is left in it has lost its leader."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def rotate(log: Path) -> None:
    """Keep a log file small: past five megabytes its content moves to `<name>.log.1`, replacing what was there.

    The file is copied and emptied, not renamed, because a running process keeps writing to the file it opened; it
    appends, so it carries on at the new end.
    """
    try:
        if log.stat().st_size <= _LARGEST_LOG_BYTES:
            return
        with log.open("r+b") as file:
            log.with_suffix(".log.1").write_bytes(file.read())
            file.truncate(0)
    except FileNotFoundError:
        return


def stop_together(
    children: Sequence[Child],
    number: int,
    *,
    patience_s: float,
    in_a_hurry: Callable[[], bool] = lambda: False,
) -> None:
    """Signal several children at once and wait for all; kill those that take too long, or all `in_a_hurry()`."""
    for child in children:
        child.signal(number)
    deadline = time.monotonic() + patience_s
    while any(child.is_running for child in children) and time.monotonic() < deadline and not in_a_hurry():
        time.sleep(_POLL_S)
    for child in children:
        child.kill()


def is_running_with(pid: int, words: str) -> bool:
    """Whether a process lives under this id and has `words` in its command line.

    A zombie has an id but no command line, and an id may have passed to a stranger since it was written down: neither
    counts.
    """
    listing = Path(f"/proc/{pid}/cmdline")
    if listing.parent.parent.joinpath("self").exists():
        try:
            return words in listing.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return False
    found = subprocess.run(
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return words in found.stdout


def end_of(pid: int, words: str, *, patience_s: float) -> bool:
    """Wait until no such process is left; whether that came in time."""
    deadline = time.monotonic() + patience_s
    while is_running_with(pid, words):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
