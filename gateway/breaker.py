"""A circuit breaker for each upstream, in each process: who fails too often is left alone, and then asked again.

Half or more failures of at least 20 requests within 30 seconds open it. Ten seconds later one request is let
through as a probe: if it succeeds the breaker closes, if it fails ten more seconds pass. All of it is counting;
the time is handed in, in seconds of a clock that never goes back.
"""

import datetime as dt
from collections import deque
from collections.abc import Iterable
from typing import Any

WINDOW_S = 30
LEAST_REQUESTS = 20
PROBE_AFTER_S = 10.0
_SECOND, _REQUESTS, _FAILURES = range(3)


class Breaker:
    """The health of one upstream as one process sees it."""

    __slots__ = ("_changed_at", "_is_probing", "_opened_at", "_seconds", "last_error")

    def __init__(self, now: float) -> None:
        # [second, requests, failures], the oldest first.
        self._seconds: deque[list[int]] = deque()
        self._opened_at: float | None = None
        self._changed_at = now
        self._is_probing = False
        self.last_error = ""

    def allows(self, now: float) -> bool:
        """Whether a request may be sent: the breaker is closed, or a probe is due."""
        return self._opened_at is None or (not self._is_probing and now >= self._opened_at + PROBE_AFTER_S)

    def wait_s(self, now: float) -> float:
        """How long until a request may be sent, as far as that can be known; 0: now."""
        if self._opened_at is None or self.allows(now):
            return 0.0
        # The probe that is on its way may answer at any moment.
        return max(self._opened_at + PROBE_AFTER_S - now, 1.0)

    def begin(self, now: float) -> "Attempt | None":
        """Send a request, or None: not now. The attempt must be told how it ended."""
        if self._opened_at is None:
            return Attempt(self, is_probe=False)
        if not self.allows(now):
            return None
        self._is_probing = True
        return Attempt(self, is_probe=True)

    def count(self, now: float, *, requests: int, failures: int) -> None:
        """Add to the window, and open where it has become too much."""
        second = int(now)
        if not self._seconds or self._seconds[-1][_SECOND] != second:
            self._forget(second)
            self._seconds.append([second, 0, 0])
        self._seconds[-1][_REQUESTS] += requests
        self._seconds[-1][_FAILURES] += failures
        if failures and self._opened_at is None:
            requests, failures = self.counted(now)
            if requests >= LEAST_REQUESTS and failures * 2 >= requests:
                self.open(now)

    def counted(self, now: float) -> tuple[int, int]:
        """Requests and failures of the last 30 seconds."""
        recent = [entry for entry in self._seconds if entry[_SECOND] > int(now) - WINDOW_S]
        requests = sum(entry[_REQUESTS] for entry in recent)
        # What breaks in the middle of a long stream may have been counted as a request a window ago.
        return requests, min(sum(entry[_FAILURES] for entry in recent), requests)

    def open(self, now: float) -> None:
        """Send no more for ten seconds."""
        if self._opened_at is None:
            self._changed_at = now
        self._opened_at = now
        self._is_probing = False

    def close(self, now: float) -> None:
        """It works again: what was counted before says nothing any more."""
        self._opened_at = None
        self._is_probing = False
        self._changed_at = now
        self._seconds.clear()

    def let_go(self) -> None:
        """The probe found out nothing; the next request is one."""
        self._is_probing = False

    def described(self, now: float, at: dt.datetime) -> dict[str, Any]:
        """What an operator wants to know; `at` is what the clock on the wall says at `now`."""
        requests, failures = self.counted(now)
        if self._opened_at is None:
            state = "closed"
        else:
            state = "half-open" if now >= self._opened_at + PROBE_AFTER_S else "open"
        since = at - dt.timedelta(seconds=now - self._changed_at)
        return {
            "state": state,
            "requests": requests,
            "failures": failures,
            "since": since.isoformat(timespec="seconds"),
            "last_error": self.last_error,
        }

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][_SECOND] <= second - WINDOW_S:
            self._seconds.popleft()


class Attempt:
    """One request to an upstream, which ends once; an answer that has begun may break later."""

    __slots__ = ("_breaker", "is_probe")

    def __init__(self, breaker: Breaker, *, is_probe: bool) -> None:
        self._breaker = breaker
        self.is_probe = is_probe

    def succeeded(self, now: float) -> None:
        """The upstream has begun to answer, or has found fault with the request itself."""
        if self.is_probe:
            self._breaker.close(now)
        self._breaker.count(now, requests=1, failures=0)

    def failed(self, now: float, reason: str) -> None:
        """It did not answer, or not what was asked."""
        self._breaker.last_error = reason
        if self.is_probe:
            self._breaker.open(now)
        self._breaker.count(now, requests=1, failures=1)

    def found_fault(self, reason: str) -> None:
        """It answered that it would not, which may be the request's own doing."""
        self._breaker.last_error = reason
        self.abandoned()

    def broke(self, now: float, reason: str) -> None:
        """An answer that had begun, and was counted as a success, failed later."""
        self._breaker.last_error = reason
        self._breaker.count(now, requests=0, failures=1)

    def aside(self) -> "Attempt":
        """The same, but nothing is learned of it: it asks for something that fails apart from all else."""
        self.abandoned()
        return _Aside(self._breaker, is_probe=False)

    def abandoned(self) -> None:
        """Nobody waited for the end, so it says nothing of the upstream."""
        if self.is_probe:
            self._breaker.let_go()


class _Aside(Attempt):
    """One of which nothing is learned."""

    __slots__ = ()

    def succeeded(self, now: float) -> None:
        pass

    def failed(self, now: float, reason: str) -> None:
        pass

    def found_fault(self, reason: str) -> None:
        pass

    def broke(self, now: float, reason: str) -> None:
        pass


class Health:
    """The breakers of all upstreams that this process has called, by the id of the target."""

    def __init__(self) -> None:
        self._breakers: dict[str, Breaker] = {}

    def allows(self, target_id: str, now: float) -> bool:
        """Whether a request may be sent to the upstream."""
        breaker = self._breakers.get(target_id)
        return breaker is None or breaker.allows(now)

    def wait_s(self, target_ids: Iterable[str], now: float) -> float:
        """How long until a request may be sent to one of these upstreams, if not now."""
        waits = [self._breakers[id_].wait_s(now) if id_ in self._breakers else 0.0 for id_ in target_ids]
        return min(waits, default=0.0)

    def begin(self, target_id: str, now: float) -> Attempt | None:
        """Send a request to the upstream, or None: not now."""
        breaker = self._breakers.get(target_id)
        if breaker is None:
            breaker = self._breakers[target_id] = Breaker(now)
        return breaker.begin(now)

    def keep_only(self, target_ids: Iterable[str]) -> None:
        """Forget the upstreams that are no longer in the catalogue."""
        for id_ in set(self._breakers).difference(target_ids):
            del self._breakers[id_]

    def described(self, now: float, at: dt.datetime) -> dict[str, dict[str, Any]]:
        """What `Breaker.described` says, by target."""
        return {id_: breaker.described(now, at) for id_, breaker in self._breakers.items()}
