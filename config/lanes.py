"""The worker's threads, in lanes: money waits for nobody, and nobody waits for e-mails.

A task of one lane never takes a thread of another. So a mail server that accepts a connection and never answers, a
payment company that is slow, or the sums of a busy day cannot keep a payment from being credited. Celery's own way to
that is a worker process for each queue, at more than 100 MB each. There is one queue: whoever starts a worker by
himself need not know of lanes to have all tasks done.
"""

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult, TaskPool  # type: ignore[attr-defined]  # the stubs know half

# What gives, takes back or frees credit by what is known here already: short, and in the database alone.
MONEY = frozenset(
    {
        "billing.process_webhook",
        "billing.process_webhooks",
        "billing.collect_credit",
    }
)
# What waits for payment companies, which may take more than two minutes to be away.
ASKING = frozenset(
    {
        "billing.ask_about_webhook",
        "billing.ask_for_refunds",
        "billing.forget_payment_methods",
        "billing.look_up_payments",
        "billing.top_up",
    }
)
# What sends is called mail_…, but for these.
_ALSO_MAIL = frozenset({"billing.notice_expiring_promotions"})
# Of each lane but the last, whose threads are Celery's own `worker_concurrency`. All together DATABASE_POOL_SIZE.
_THREADS = 2


def lane_of(task: str) -> str:
    """`money`, `asking`, `mail` (all that sends any) or `others`, by the name of the task."""
    if task in MONEY:
        return "money"
    if task in ASKING:
        return "asking"
    if task in _ALSO_MAIL or task.partition(".")[2].startswith("mail_"):
        return "mail"
    return "others"


def _unless_expired(target: Callable[..., Any]) -> Callable[..., Any]:
    """Do nothing where the task has expired while it waited for a thread; Celery has looked only as it came in."""

    def run(name: str, ident: str, headers: dict[str, Any], *rest: Any) -> Any:
        expires = headers.get("expires")
        if expires and dt.datetime.fromisoformat(expires) <= dt.datetime.now(dt.UTC):
            return (0, None, 0.0)  # not failed, no result, no time: what Celery is told of a success
        return target(name, ident, headers, *rest)

    return run


class Lanes(TaskPool):
    """Celery's pool of threads for all others, and beside it threads for each of the other lanes.

    It takes whatever is queued (`worker_prefetch_multiplier` is 0): with a limit, tasks that wait for a thread of a
    slow lane would use it up, and money would stay in Redis behind them. Ticks that have waited too long are dropped.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lanes = {
            lane: ThreadPoolExecutor(_THREADS, thread_name_prefix=lane)
            for lane in ("money", "asking", "mail")
        }
        self._lanes["others"] = self.executor  # type: ignore[attr-defined]  # nor this

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
        return ApplyResult(
            lane.submit(apply_target, _unless_expired(target), args, kwargs, callback, accept_callback)
        )

    def on_stop(self) -> None:
        """Let the tasks in hand end, in all lanes at once; those that wait are found again by the next tick."""
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)
        for lane in self._lanes.values():
            lane.shutdown()
        super().on_stop()
