"""Auto top-up with several at work at once, a provider that stalls, and processes that die at the worst point."""

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.db import connection

from accounts.models import Account
from billing import auto_topping_up, looking_up, payment_methods
from billing.models import AutoTopUp, TopUp
from billing.providers.stripe import STRIPE
from tests import factories
from tests.billing.fake_stripe import ASKS_FOR_CONFIRMATION, DECLINED_LATER, FakeStripe
from tests.billing.fake_stripe.accounts import Json
from tests.billing.saved_cards import USD, agree, balance, make_account, outcomes, save_at
from tests.concurrency import in_parallel
from tests.gateway.server import database_url
from tests.invariants import check_books
from tests.usage.desk import Desk

ROOT = Path(__file__).resolve().parents[2]
LATER = auto_topping_up.ASKING_LASTS


def run(account: Account, at: dt.datetime) -> None:
    for account_id in auto_topping_up.due(at=at):
        assert account_id == account.pk
        auto_topping_up.run(account_id=account_id, at=at)


@pytest.mark.django_db(transaction=True)
def test_many_workers_buy_once(fake_stripe: FakeStripe) -> None:
    account = make_account()
    agree(account, save_at(fake_stripe, account))
    at = factories.now()
    in_parallel(lambda _: auto_topping_up.run(account_id=account.pk, at=at), times=8)
    assert outcomes(account) == ["paid"]
    assert len(fake_stripe.of_kind("payment_intent")) == 1
    asked = [path for method, path, _headers in fake_stripe.requests if method == "POST"]
    assert asked == ["/v1/payment_intents"]
    assert balance(account) == 29 * USD
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_fifty_calls_at_once_that_use_the_credit_up_cause_one_purchase(fake_stripe: FakeStripe) -> None:
    """Fifty connections: all calls run when all of them see that credit is low, and end while it is bought."""
    desk = Desk(credit="10")
    agree(desk.account, save_at(fake_stripe, desk.account))
    requests = [desk.request() for _ in range(50)]
    all_run = threading.Barrier(len(requests), timeout=60)
    sessions: list[int] = []

    def work(number: int) -> None:
        desk.admit(requests[number])
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            sessions.append(cursor.fetchone()[0])
        all_run.wait()
        at = factories.now()
        assert auto_topping_up.due(at=at) in ([desk.account.pk], [])
        auto_topping_up.run(account_id=desk.account.pk, at=at)
        desk.end(requests[number], input_tokens=100, output_tokens=50)

    in_parallel(work, times=len(requests))
    assert len(set(sessions)) == len(requests)
    assert outcomes(desk.account) == ["paid"]
    assert len(fake_stripe.of_kind("payment_intent")) == 1
    assert balance(desk.account) == 30 * USD - 50 * (100 * 1_000 + 50 * 2_000)
    check_books(idle=True)


@pytest.mark.django_db
def test_two_declines_stop_it(fake_stripe: FakeStripe) -> None:
    account = make_account()
    agree(account, save_at(fake_stripe, account, DECLINED_LATER))
    at = factories.now()
    run(account, at)
    run(account, at + auto_topping_up.RETRY_AFTER)
    run(account, at + 2 * auto_topping_up.RETRY_AFTER)
    assert outcomes(account) == ["failed", "failed"]
    assert "The last two payments failed." in AutoTopUp.objects.get().off_reason
    assert balance(account) == 9 * USD


@pytest.mark.django_db
def test_a_bank_that_wants_the_buyer_is_a_failure(fake_stripe: FakeStripe) -> None:
    account = make_account()
    agree(account, save_at(fake_stripe, account, ASKS_FOR_CONFIRMATION))
    run(account, factories.now())
    assert outcomes(account) == ["failed"]


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["drop-before", "drop-after"])
def test_an_answer_that_is_lost_is_asked_for_again_and_charged_once(
    fake_stripe: FakeStripe, how: str
) -> None:
    account = make_account()
    agree(account, save_at(fake_stripe, account))
    fake_stripe.fail_next(how, path="/v1/payment_intents", times=3)
    at = factories.now()
    run(account, at)
    assert outcomes(account) == ["pending"]
    run(account, at)
    assert outcomes(account) == ["pending"]
    assert auto_topping_up.charged_in_month(account_id=account.pk, at=at) == 25 * USD
    run(account, at + LATER)
    assert outcomes(account) == ["paid"]
    assert len(fake_stripe.of_kind("payment_intent")) == 1
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["switched off", "removed"])
@pytest.mark.parametrize("was_charged", [False, True])
def test_what_nobody_wants_any_more_is_looked_up_and_not_charged(
    fake_stripe: FakeStripe, why: str, was_charged: bool
) -> None:
    account = make_account()
    method = save_at(fake_stripe, account)
    agree(account, method)
    how = "drop-after" if was_charged else "drop-before"
    fake_stripe.fail_next(how, path="/v1/payment_intents", times=3)
    at = factories.now()
    run(account, at)
    if why == "removed":
        payment_methods.remove(method=method, actor=None, at=at)
    else:
        auto_topping_up.switch_off(account=account, actor=account.members.get())
    run(account, at + LATER)
    assert outcomes(account) == (["paid"] if was_charged else ["failed"])
    assert len(fake_stripe.of_kind("payment_intent")) == was_charged
    check_books(idle=True)


@pytest.mark.django_db
def test_a_charge_is_never_repeated_when_its_key_may_be_forgotten(fake_stripe: FakeStripe) -> None:
    account = make_account()
    agree(account, save_at(fake_stripe, account))
    fake_stripe.fail_next("drop-after", path="/v1/payment_intents", times=3)
    at = factories.now()
    run(account, at)
    fake_stripe._answers.clear()
    run(account, at + auto_topping_up.ASK_AGAIN_FOR)
    assert outcomes(account) == ["paid"]
    assert len(fake_stripe.of_kind("payment_intent")) == 1


@pytest.mark.django_db(transaction=True)
def test_nobody_gives_up_what_another_worker_is_charging(fake_stripe: FakeStripe) -> None:
    """Switched off in the middle of a charge whose connection hangs as long as the client lets it."""
    account = make_account()
    agree(account, save_at(fake_stripe, account))
    at, create = factories.now(), fake_stripe.create_intent
    until = at + STRIPE.longest_call

    def while_another_looks(asked: Json) -> Json:
        auto_topping_up.switch_off(account=account, actor=account.members.get())
        run(account, until)
        auto_topping_up.run(account_id=account.pk, at=until)
        seen.extend(outcomes(account))
        connection.close()
        return create(asked)

    seen: list[str] = []
    fake_stripe.create_intent = while_another_looks  # type: ignore[method-assign]
    run(account, at)
    assert seen == ["pending"]
    assert outcomes(account) == ["paid"]
    check_books(idle=True)


@pytest.mark.django_db
def test_a_payment_of_another_amount_is_left_to_the_operators(fake_stripe: FakeStripe) -> None:
    account = make_account()
    agree(account, save_at(fake_stripe, account))
    create = fake_stripe.create_intent
    fake_stripe.create_intent = lambda asked: create({**asked, "amount": "1"})  # type: ignore[method-assign]
    run(account, factories.now())
    assert outcomes(account) == ["failed"]
    assert balance(account) == 9 * USD


def _buyer(fake: FakeStripe, account: Account) -> subprocess.Popen[bytes]:
    """A process that does what a worker does for the account."""
    act = (
        "from django.utils import timezone; from billing import auto_topping_up;"
        f"auto_topping_up.run(account_id={account.pk}, at=timezone.now())"
    )
    environ = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "TOPUP_PROVIDERS": "stripe",
        "STRIPE_SECRET_KEY": fake.key,
        "STRIPE_API_URL": fake.url,
    }
    return subprocess.Popen([sys.executable, "manage.py", "shell", "-c", act], cwd=ROOT, env=environ)


@pytest.mark.faults
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("point", ["before the charge", "after the charge"])
def test_a_worker_that_is_killed_around_the_charge_leaves_one_charge_and_one_credit(
    fake_stripe: FakeStripe, point: str
) -> None:
    account = make_account()
    agree(account, save_at(fake_stripe, account))
    create = fake_stripe.create_intent
    workers: list[subprocess.Popen[bytes]] = []

    def die(asked: Json) -> Json:
        intent = create(asked) if point == "after the charge" else {}
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait(timeout=10)
        fake_stripe.create_intent = create  # type: ignore[method-assign]
        if not intent:
            raise ConnectionAbortedError
        return intent

    fake_stripe.create_intent = die  # type: ignore[method-assign]
    workers.append(_buyer(fake_stripe, account))
    assert workers[0].wait(timeout=60) == -signal.SIGKILL
    assert outcomes(account) == ["pending"]
    assert balance(account) == 9 * USD
    at = factories.now()
    in_parallel(lambda _: run(account, at + LATER), times=4)
    assert outcomes(account) == ["paid"]
    assert len(fake_stripe.of_kind("payment_intent")) == 1
    assert balance(account) == 29 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_whoever_reports_the_outcome_it_is_counted_once(fake_stripe: FakeStripe) -> None:
    account = make_account()
    agree(account, save_at(fake_stripe, account))
    fake_stripe.fail_next("drop-after", path="/v1/payment_intents", times=3)
    at = factories.now()
    run(account, at)
    looking_up.look_up(topup=TopUp.objects.get(origin="automatic"), at=at)
    assert outcomes(account) == ["paid"]
    run(account, at)
    auto = AutoTopUp.objects.get()
    assert (auto.failures, auto.counted_topup_id) == (0, TopUp.objects.get(origin="automatic").pk)
    assert auto_topping_up.due(at=at + LATER) == []
