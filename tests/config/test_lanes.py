"""The worker's lanes: who waits for whom."""

import datetime as dt
import inspect
import threading
import time
from collections.abc import Callable

import pytest

from accounts import mailing
from billing import owed_mail
from config import celery
from config.lanes import ASKING, MONEY, Lanes, lane_of

OURS = ("billing.", "usage.")


def hand_over(
    pool: Lanes, work: Callable[..., object], name: str, *, expires: str | None = None
) -> list[object]:
    """As Celery does it; what it is told of the end is in the list then."""
    told: list[object] = []
    pool.apply_async(work, (name, "an id", {"expires": expires}, b"", "", ""), callback=told.append)
    return told


@pytest.mark.parametrize("slow", ["billing.mail_receipts", "billing.top_up", "usage.roll_up_hours"])
def test_money_does_not_wait_for_a_lane_that_is_full(slow: str) -> None:
    pool, is_over, is_credited = Lanes(2), threading.Event(), threading.Event()
    try:
        for _ in range(20):
            hand_over(pool, lambda *_: is_over.wait(30), slow)
        hand_over(pool, lambda *_: is_credited.set(), "billing.process_webhook")
        assert is_credited.wait(5)
    finally:
        is_over.set()
        pool.stop()


def test_whoever_stops_waits_for_tasks_in_hand_and_for_no_others() -> None:
    pool, ended = Lanes(2), list[str]()
    begun = threading.Semaphore(0)

    def work(name: str, *_: object) -> None:
        begun.release()
        time.sleep(0.2)
        ended.append(name)

    for name in ["billing.process_webhook", "billing.mail_receipts", "billing.top_up", "usage.audit"] * 5:
        hand_over(pool, work, name)
    for _ in range(4 * 2):
        begun.acquire()
    pool.stop()
    assert len(ended) == 8


def test_a_tick_that_expired_while_it_waited_for_a_thread_is_ended_and_not_done() -> None:
    pool, done = Lanes(2), list[str]()
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
    late = hand_over(
        pool, lambda *_: done.append("late"), "usage.roll_up_hours", expires="2026-01-01T00:00:00+00:00"
    )
    timely = hand_over(pool, lambda *_: done.append("timely"), "usage.roll_up_hours", expires=soon)
    deadline = time.monotonic() + 5
    while not (late and timely):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    pool.stop()
    assert (done, late) == (["timely"], [(0, None, 0.0)])


def test_every_task_that_sends_is_in_the_lane_of_mail_and_every_name_exists() -> None:
    celery.app.loader.import_default_modules()
    tasks = {name: task for name, task in celery.app.tasks.items() if name.startswith(OURS)}
    senders = {
        name
        for name, task in tasks.items()
        if any(word in inspect.getsource(task.run) for word in ("mailing.", "_send_owed"))
    }
    assert len(senders) > 10
    assert {lane_of(name) for name in senders} == {"mail"}
    assert senders == {name for name in tasks if lane_of(name) == "mail"}
    assert set(tasks) >= MONEY | ASKING
    assert {entry["task"] for entry in celery.app.conf.beat_schedule.values()} <= set(tasks)


def test_a_bite_ends_after_ten_seconds_and_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("billing.owed_mail.time.monotonic", lambda: now)
    rows = list(range(10))
    taken = []
    for row in owed_mail.a_bite(lambda: rows.pop(0) if rows else None):
        taken.append(row)
        now += 4
    assert taken == [0, 1, 2]
    assert list(owed_mail.a_bite(lambda: None)) == []


def test_what_sending_can_raise_includes_a_server_that_is_silent() -> None:
    assert issubclass(TimeoutError, mailing.SendingErrors)
