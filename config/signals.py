"""Signals as something to wait for: nothing of ours runs inside a handler. Standard library only."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(Exception):
    """Somebody asked the process to stop: Ctrl-C, SIGTERM, or a terminal that went away."""


class Signals:
    """Notes the wish to stop, and wakes `pause` when that or the end of a child comes."""

    def __init__(self) -> None:
        self.stop_requests = 0
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    @contextlib.contextmanager
    def caught(self) -> Iterator["Signals"]:
        """Catch signals inside the block. What the caller ignores (nohup does so with SIGHUP) stays ignored."""
        wanted = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, self._note) for number in (*wanted, signal.SIGCHLD)}
        previous_descriptor = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            yield self
        finally:
            signal.set_wakeup_fd(previous_descriptor)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(self._reader)
            os.close(self._writer)

    def pause(self, seconds: float) -> None:
        """Sleep, shorter if a signal comes.

        Raises:
            StopRequested: now, or at any earlier moment, somebody wanted us to stop.
        """
        if not self.stop_requests:
            self._sleep(seconds)
        if self.stop_requests:
            raise StopRequested

    def wait_until(self, deadline: float) -> None:
        """Sleep until a moment of the monotonic clock, through the ends of children.

        Raises:
            StopRequested: as `pause`.
        """
        while (left_s := deadline - time.monotonic()) > 0:
            self.pause(left_s)

    def _sleep(self, seconds: float) -> None:
        if select.select([self._reader], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader, 512)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self.stop_requests += 1
