"""Real concurrency: threads with a database connection each, which all start at the same moment."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def in_parallel(act: Callable[[int], T], *, times: int) -> list[T]:
    """Call `act(0)`, `act(1)`, … at the same time; their answers in that order. Needs a transactional test."""
    start = threading.Barrier(times)

    def run(number: int) -> T:
        # Of its own, because the pool has fewer than there may be threads.
        options = {
            name: value for name, value in connection.settings_dict["OPTIONS"].items() if name != "pool"
        }
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}
        try:
            start.wait(timeout=10)
            return act(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=times) as pool:
        return list(pool.map(run, range(times)))
