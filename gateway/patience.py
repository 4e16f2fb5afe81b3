"""How long an upstream may keep us waiting, looked after by one timer for all that wait.

A timer for each request and each piece of a stream, set and taken back, costs as much as to pass the piece on. Here the
beginning of a wait is a number that is written down, and ten times a second the numbers are read.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_LOOK_S = 0.1
_NOT_WAITING = float("inf")

T = TypeVar("T")


class Wait:
    """One who waits, again and again, each time for at most `limit_s` seconds; then `give_up` is called."""

    __slots__ = ("give_up", "is_over", "limit_s", "since")

    def __init__(self, limit_s: float, give_up: Callable[[], object]) -> None:
        self.limit_s = limit_s
        self.give_up = give_up
        self.since = _NOT_WAITING
        self.is_over = False

    def begin(self) -> None:
        """From now on it counts."""
        self.since = time.monotonic()

    def rest(self) -> None:
        """What was waited for has come."""
        self.since = _NOT_WAITING


class Patience:
    """Everyone who waits. Lives on one event loop; a limit is kept to a tenth of a second."""

    def __init__(self) -> None:
        self._waits: set[Wait] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, wait: Wait) -> None:
        """Look after it until `forget`."""
        self._waits.add(wait)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def forget(self, wait: Wait) -> None:
        self._waits.discard(wait)

    async def within(self, limit_s: float, awaited: Awaitable[T]) -> T:
        """What is awaited. Raises TimeoutError where it takes longer; it is canceled then."""
        task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # who awaits is in one
        canceled_before = task.cancelling()
        wait = Wait(limit_s, task.cancel)
        wait.begin()
        self.watch(wait)
        try:
            return await awaited
        except asyncio.CancelledError:
            # As asyncio.timeout does: somebody else may have canceled the task as well.
            if wait.is_over and task.uncancel() <= canceled_before:
                raise TimeoutError from None
            raise
        finally:
            self.forget(wait)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        for wait in [wait for wait in self._waits if now - wait.since >= wait.limit_s]:
            self.forget(wait)
            wait.is_over = True
            wait.give_up()
        if self._waits:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
