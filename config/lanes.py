"""The worker's threads, in lanes: money waits for nobody, and nobody waits for e-mails.

A task of one lane never takes a thread of another. So a mail server that accepts a connection and never answers, a
payment company that is slow, or the sums of a busy day cannot keep a payment from being credited. Celery's own way to
that is a worker process for each queue, which is some 110 MB for each.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult, TaskPool

# What gives, takes or frees credit by what is known here already: short, and in the database.
MONEY = frozenset(
    {
        "billing.process_webhook",
        "billing.process_webhooks",
        "billing.collect_credit",
        "billing.expire_promotions",
        "usage.sweep_holds",
    }
)
_ALSO_MAIL = frozenset({"billing.notice_expiring_promotions"})
# With the two of everything else, within DATABASE_POOL_SIZE.
_THREADS_FOR_MONEY = 3
_THREADS_FOR_MAIL = 2


def lane_of(task: str) -> str:
    """`money`, `mail` (all that sends any) or `others`, by the name of the task."""
    if task in MONEY:
        return "money"
    if task in _ALSO_MAIL or task.partition(".")[2].startswith("mail_"):
        return "mail"
    return "others"


class Lanes(TaskPool):
    """Celery's pool of threads for all others; beside it threads for money alone, and for mail alone.

    It takes whatever is queued (`worker_prefetch_multiplier` is 0): with a limit, tasks that wait for a thread of a
    slow lane would use it up, and money would stay in Redis behind them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lanes = {
            "money": ThreadPoolExecutor(_THREADS_FOR_MONEY, thread_name_prefix="money"),
            "mail": ThreadPoolExecutor(_THREADS_FOR_MAIL, thread_name_prefix="mail"),
            "others": self.executor,
        }

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> ApplyResult:
        """Hand a task to its lane: its name is the first of the arguments that Celery gives."""
        lane = self._lanes[lane_of(args[0])]
        return ApplyResult(lane.submit(apply_target, target, args, kwargs, callback, accept_callback))

    def on_stop(self) -> None:
        """Let the tasks in hand end, in all lanes at once; those that wait are found again by the next tick."""
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)
        for lane in self._lanes.values():
            lane.shutdown()
        super().on_stop()
