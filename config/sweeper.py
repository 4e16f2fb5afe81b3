"""A thread of the worker that sweeps holds. It is no task: those come through Redis, and must not wait for that.

Credit that a dead gateway process held is the account's again within a minute, whatever has become of Redis.
"""

import threading
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from django.db import connection
from django.utils import timezone

from usage import sweeping

logger = get_logger(__name__)


class Sweeper(threading.Thread):
    """Resolves the holds of dead gateway processes, over and over."""

    def __init__(self) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._is_over = threading.Event()

    def run(self) -> None:
        """Sweep until told to stop; whatever goes wrong, try again."""
        while not self._is_over.is_set():
            try:
                sweeping.sweep(at=timezone.now())
            except Exception as error:  # noqa: BLE001 - the next try may find PostgreSQL there
                logger.warning("the holds could not be swept: %s", type(error).__name__)
            finally:
                connection.close()  # back to the pool
            self._is_over.wait(sweeping.EVERY.total_seconds())

    def stop(self) -> None:
        """Begin no other sweep."""
        self._is_over.set()


class SweeperStep(bootsteps.StartStopStep):
    """Starts and stops the sweeper with the worker."""

    def create(self, parent: Any) -> Any:
        """Make the thread that `start` and `stop` of this step are passed on to."""
        return Sweeper()
