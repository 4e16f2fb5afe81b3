"""Real concurrency: threads with a database connection each, which all start at the same moment."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def in_parallel(act: Callable[[int], T], *, times: int) -> list[T]:
    """Call `act(0)`, `act(1)`, … at the same time; their answers in that order. Needs a transactional test."""
    start = threading.Barrier(times)

    def run(number: int) -> T:
        _take_a_connection_of_its_own()
        try:
            start.wait(timeout=10)
            return act(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=times) as pool:
        return list(pool.map(run, range(times)))


def start_and_wait_behind(act: Callable[[], object]) -> threading.Thread:
    """Run `act` on another connection, up to where it waits for a lock of ours: within an open transaction."""

    def run() -> None:
        _take_a_connection_of_its_own()
        try:
            act()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    until = time.monotonic() + 10
    with connection.cursor() as cursor:
        while time.monotonic() < until:
            cursor.execute(
                "SELECT count(*) FROM pg_locks"
                " WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if cursor.fetchone()[0]:
                return thread
            time.sleep(0.01)
    msg = "it waits for nothing"
    raise AssertionError(msg)


def _take_a_connection_of_its_own() -> None:
    """The pool has fewer than there may be threads."""
    options = {name: value for name, value in connection.settings_dict["OPTIONS"].items() if name != "pool"}
    connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}
