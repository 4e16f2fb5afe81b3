"""Nobody spends what they do not have, and a dead secret stays dead, whatever runs in parallel."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from accounts.models import Plan
from billing import budgets
from billing.models import Budget, Wallet
from catalog.models import Model
from keys import rotating
from tests.factories import make_key, now
from tests.gateway import server
from tests.gateway.conftest import Stage, chat, wait_for
from usage.models import DailyAllowance, UsageRecord

PRICED = {"tier": Model.Tier.PREMIUM, "input_price": "0", "output_price": "1000"}  # $0.001 an output token


def test_of_fifty_parallel_calls_with_credit_for_three_three_are_served(stage: Stage) -> None:
    model = stage.model(**PRICED)
    account = stage.account(credit="0.03")
    issued = make_key(account)
    body = chat(model, max_tokens=10, sandbox={"output_tokens": 10, "delay_ms": 300})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: stage.post(issued.secret, body), range(50)))

    assert Counter(answer.status_code for answer in answers) == {200: 3, 402: 47}
    wallet = Wallet.objects.get(account=account)
    assert (wallet.balance_nanousd, wallet.held_nanousd) == (0, 0)
    wait_for(lambda: UsageRecord.objects.filter(account=account).count() == 50)


def test_on_two_processes_nobody_overspends_a_wallet_a_key_limit_or_an_allowance(
    stage: Stage, sandbox_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dear, basic = stage.model(**PRICED), stage.model(max_output_tokens=90_000)
    account = stage.account(credit="0.05")
    free, limited = make_key(account), make_key(account)
    budgets.set_key_budget(
        key=limited.key, period=Budget.Period.TOTAL, limit_nanousd=20_000_000, actor=None, at=now()
    )
    newcomer = stage.account(plan=Plan.BASIC)
    frugal = make_key(newcomer)
    home = tmp_path_factory.mktemp("processes")
    spending = chat(dear, max_tokens=10, sandbox={"output_tokens": 10, "delay_ms": 200})
    drawing = chat(basic, max_tokens=60_000, sandbox={"output_tokens": 10, "delay_ms": 200})

    with server.running(sandbox_url=sandbox_url, home=home, processes=2) as gateway:
        both = Stage(gateway, sandbox_url)
        calls = [(limited, spending)] * 12 + [(free, spending)] * 12 + [(frugal, drawing)] * 8
        with ThreadPoolExecutor(len(calls)) as pool:
            answers = list(pool.map(lambda call: (call[0], both.post(call[0].secret, call[1])), calls))

    served = Counter(issued.key.pk for issued, answer in answers if answer.status_code == 200)
    assert served[limited.key.pk] <= 2
    assert served[limited.key.pk] + served[free.key.pk] == 5
    # Three as they asked, and a fourth cut to what was left.
    assert served[frugal.key.pk] == 4
    codes = Counter(answer.json()["error"]["code"] for _, answer in answers if answer.status_code != 200)
    # Whether a call of the limited key meets its limit or an empty wallet first is a matter of the order.
    assert set(codes) <= {"insufficient_credits", "key_limit_reached", "daily_allowance_exhausted"}
    assert sum(codes.values()) == len(calls) - 5 - 4
    assert Wallet.objects.get(account=account).balance_nanousd == 0
    assert DailyAllowance.objects.get(account=newcomer).held_tokens == 0


def test_no_call_that_starts_after_a_rotation_gets_an_answer_with_the_old_secret(stage: Stage) -> None:
    model = stage.model(**PRICED)
    issued = make_key(stage.account(credit="100"))
    body = chat(model, max_tokens=1, sandbox={"output_tokens": 1})
    outcomes: list[tuple[float, int]] = []
    is_over = threading.Event()

    def hammer(_: int) -> None:
        while not is_over.is_set():
            started = time.monotonic()
            outcomes.append((started, stage.post(issued.secret, body).status_code))

    with ThreadPoolExecutor(51) as pool:
        calls = [pool.submit(hammer, number) for number in range(50)]
        try:
            wait_for(lambda: len(outcomes) > 100)
            fresh = rotating.rotate(key=issued.key, actor=None, at=now())
            rotated = time.monotonic()
            wait_for(lambda: sum(started > rotated for started, _ in list(outcomes)) > 100)
        finally:
            is_over.set()
        for call in calls:
            call.result()

    before = Counter(status for started, status in outcomes if started <= rotated)
    after = Counter(status for started, status in outcomes if started > rotated)
    assert before[200] > 50
    assert set(after) == {401}
    assert stage.post(fresh.secret, body).status_code == 200
