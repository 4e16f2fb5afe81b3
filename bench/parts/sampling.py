"""Where a gateway process spends its processor time, told from within: `uvicorn bench.parts.sampling:application`.

It is Tollgate's own application, and two addresses more: `POST /bench/start`, and `POST /bench/stop`, which answers
with processor seconds by thread and stack. Every few milliseconds of processor time the kernel sends SIGPROF; then each
thread is charged, at the place where it is, with what it has used since the last time.
"""

import dis
import itertools
import json
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from types import FrameType
from typing import Any

from config.asgi import application as tollgate

INTERVAL_S = 0.002
_DEEPEST = 60
_RESUME = dis.opmap["RESUME"]


class Sampler:
    """Charges threads and stacks. A stack is the names of its modules, innermost first, each once in a row."""

    def __init__(self) -> None:
        self._used_s: dict[int, float] = {}
        self._charged: defaultdict[tuple[str, tuple[str, ...]], float] = defaultdict(float)

    def start(self) -> None:
        """From now on."""
        self._charged.clear()
        self._used_s = {
            thread.ident: _cpu_s(thread.ident) for thread in threading.enumerate() if thread.ident
        }
        signal.signal(signal.SIGPROF, self._charge)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def stop(self) -> list[tuple[str, list[str], float]]:
        """Thread, stack and processor seconds."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        return [(thread, list(stack), seconds) for (thread, stack), seconds in self._charged.items()]

    def _charge(self, _number: int, interrupted: FrameType | None) -> None:
        """Python runs this in the main thread, at the next moment at which it may."""
        frames = sys._current_frames()  # noqa: SLF001 - its documented name
        for thread in threading.enumerate():
            ident = thread.ident
            if ident is None:
                continue
            used_s = _cpu_s(ident)
            gone_s = used_s - self._used_s.get(ident, 0.0)
            self._used_s[ident] = used_s
            is_main = thread is threading.main_thread()
            frame = _really(interrupted) if is_main else frames.get(ident)
            if gone_s > 0 and frame:
                self._charged[thread.name, _stack(frame)] += gone_s


def _cpu_s(ident: int) -> float:
    return time.clock_gettime(time.pthread_getcpuclockid(ident))


def _really(frame: FrameType | None) -> FrameType | None:
    """A function that stands at its very beginning did not run yet: the signal came while its caller was in C."""
    while frame and frame.f_back and frame.f_code.co_code[frame.f_lasti] == _RESUME:
        frame = frame.f_back
    return frame


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    names: list[str] = []
    while frame and len(names) < _DEEPEST:
        names.append(str(frame.f_globals.get("__name__", "?")))
        frame = frame.f_back
    return tuple(name for name, _group in itertools.groupby(names))


_sampler = Sampler()


async def application(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Coroutine[Any, Any, None]],
) -> None:
    """The ASGI application."""
    if scope["type"] != "http" or not scope["path"].startswith("/bench/"):
        await tollgate(scope, receive, send)
        return
    answer: object = None
    if scope["path"] == "/bench/start":
        _sampler.start()
    else:
        answer = _sampler.stop()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
