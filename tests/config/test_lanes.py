"""The worker's lanes: who waits for whom."""

import inspect
import threading
import time

import pytest

from accounts import mailing
from billing import owed_mail
from config import celery
from config.lanes import MONEY, Lanes, lane_of

OURS = ("billing.", "usage.")


@pytest.mark.parametrize("slow", ["billing.mail_receipts", "usage.roll_up_hours"])
def test_money_does_not_wait_for_a_lane_that_is_full(slow: str) -> None:
    pool, is_over, is_credited = Lanes(2), threading.Event(), threading.Event()
    try:
        for _ in range(20):
            pool.apply_async(lambda *_: is_over.wait(30), (slow,), callback=lambda _done: None)
        pool.apply_async(
            lambda *_: is_credited.set(), ("billing.process_webhook",), callback=lambda _done: None
        )
        assert is_credited.wait(5)
    finally:
        is_over.set()
        pool.stop()


def test_whoever_stops_waits_for_tasks_in_hand_and_for_no_others() -> None:
    pool, ended = Lanes(2), list[str]()
    begun = threading.Semaphore(0)

    def work(name: str) -> None:
        begun.release()
        time.sleep(0.2)
        ended.append(name)

    for name in ["billing.process_webhook", "billing.mail_receipts", "usage.audit"] * 5:
        pool.apply_async(work, (name,), callback=lambda _done: None)
    for _ in range(3 + 2 + 2):
        begun.acquire()
    pool.stop()
    assert len(ended) == 7


def test_every_task_that_sends_is_in_the_lane_of_mail_and_every_name_exists() -> None:
    celery.app.loader.import_default_modules()
    tasks = {name: task for name, task in celery.app.tasks.items() if name.startswith(OURS)}
    senders = {
        name for name, task in tasks.items() if "mailing." in inspect.getsource(inspect.getmodule(task.run))
        and any(word in inspect.getsource(task.run) for word in ("mailing.", "_send_owed"))
    }
    assert len(senders) > 10
    assert {lane_of(name) for name in senders} == {"mail"}
    assert senders == {name for name in tasks if lane_of(name) == "mail"}
    assert set(tasks) >= MONEY
    assert {entry["task"] for entry in celery.app.conf.beat_schedule.values()} <= set(tasks)


def test_a_bite_ends_after_ten_seconds_and_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(owed_mail.time, "monotonic", lambda: now)
    rows = list(range(10))
    taken = []
    for row in owed_mail.a_bite(lambda: rows.pop(0) if rows else None):
        taken.append(row)
        now += 4
    assert taken == [0, 1, 2]
    assert list(owed_mail.a_bite(lambda: None)) == []


def test_what_sending_can_raise_includes_a_server_that_is_silent() -> None:
    assert issubclass(TimeoutError, mailing.SendingErrors)
