"""The process that works on tasks and also keeps the clock: `python -m config.worker`.

Celery's own `--beat` forks the scheduler. That costs the memory of a second process, which outlives a worker that is
killed and is not missed when it dies alone. Here it is a thread, and when the thread ends, the worker ends. Which
threads the tasks run in is said in `config.lanes`.
"""

import os
import signal
import threading
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.beat import Service
from celery.utils.log import get_logger
from django.conf import settings

from config.celery import app

logger = get_logger(__name__)
# Seconds that the clock may take to notice that the worker stops.
_LONGEST_NAP_S = 1


class Clock(threading.Thread):
    """Celery's beat in a thread."""

    def __init__(self) -> None:
        super().__init__(name="beat", daemon=True)
        self._schedule: Path = settings.TOLLGATE_HOME / "beat-schedule"
        self._service = Service(app, max_interval=_LONGEST_NAP_S, schedule_filename=str(self._schedule))
        self._is_stopping = False

    def run(self) -> None:
        """Send what is due until told to stop; a clock that breaks takes the worker along, to be started anew."""
        try:
            app.set_current()
            self._service.start()
        except Exception:
            logger.exception("beat has failed")
            # A schedule that was half written when the power went must not fail again at every start. What is lost
            # is when each task was last due; all of them find by themselves what is left to do.
            for file in self._schedule.parent.glob(f"{self._schedule.name}*"):
                file.unlink()
        if not self._is_stopping:
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self) -> None:
        """Stop sending, and wait until the schedule is written."""
        self._is_stopping = True
        self._service.stop(wait=True)


class ClockStep(bootsteps.StartStopStep):
    """Starts and stops the clock with the worker."""

    def create(self, parent: Any) -> Any:
        """Make the thread that `start` and `stop` of this step are passed on to."""
        return Clock()


def main() -> None:
    """Run until SIGTERM, then finish the tasks in hand."""
    app.steps["worker"].add(ClockStep)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    app.worker_main(["worker", *quiet])


if __name__ == "__main__":
    main()
