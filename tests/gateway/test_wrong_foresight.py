"""What somebody else commits while a batch waits for his lock is what the batch is decided on."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from accounts.models import Plan
from billing.models import Hold
from gateway.teller import Teller
from tests.gateway.tellers import locked, run
from tests.gateway.test_teller_ahead import Counter
from tests.usage.desk import Desk
from usage.admission import (
    Admitted,
    AllowanceExhausted,
    BudgetReached,
    CreditsInsufficient,
    Decision,
    Idempotency,
    PolicyChanged,
    Repeated,
)
from usage.minutes import Minute, MinuteExhausted
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

_BUDGET = """
    INSERT INTO billing_budget (account_id, environment, key_id, period, limit_nanousd, is_hard_stop, period_start,
        spent_nanousd, held_nanousd, previous_spent_nanousd, previous_held_nanousd, alert_percents, alerted_percent)
    SELECT account_id, '', id, 'total', 0, true, '2000-01-01', 0, 0, 0, 0, '{}', 0 FROM keys_apikey
"""
_CLAIM = """
    INSERT INTO usage_idempotencyclaim (key_id, digest, body_digest, request_id, claimed_at)
    SELECT id, repeat('d', 64), repeat('b', 64), gen_random_uuid(), now() FROM keys_apikey
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE billing_wallet SET held_nanousd = balance_nanousd", CreditsInsufficient),
        ("UPDATE keys_apikey SET policy_version = 99", PolicyChanged),
        ("UPDATE accounts_account SET policy_version = 99", PolicyChanged),
        (
            "INSERT INTO usage_minutegap SELECT id, now() + interval '1 minute' FROM keys_apikey",
            MinuteExhausted,
        ),
        (_BUDGET, BudgetReached),
        (_CLAIM, Repeated),
    ],
)
def test_what_is_committed_under_the_lock_is_seen(
    change: str, expected: type[Decision], tmp_path: Path
) -> None:
    desk = Desk(credit="0.001")
    first = desk.request()
    late = desk.request(
        minute=Minute(1, None, 5, is_decided=True), idempotency=Idempotency("d" * 64, "b" * 64)
    )

    async def act(teller: Teller) -> None:
        counter = Counter(teller, desk)
        await counter.serve(first)
        with locked(desk.account) as other:
            (task,) = await counter.send(late)
            other.execute(change)
            other.execute("COMMIT")
        assert isinstance(await task, expected)

    run(act, tmp_path)
    assert not Hold.objects.exists()


def test_an_allowance_that_is_drawn_under_the_lock_is_seen(tmp_path: Path) -> None:
    desk = Desk(plan=Plan.BASIC)
    asked: dict[str, Any] = {"draws_allowance": True, "spends_credits": False}
    first, late = desk.request(**asked), desk.request(**asked)

    async def act(teller: Teller) -> None:
        counter = Counter(teller, desk)
        await counter.serve(first)
        with locked(desk.account) as other:
            (task,) = await counter.send(late)
            other.execute("UPDATE usage_dailyallowance SET requests = 7200")
            other.execute("COMMIT")
        assert isinstance(await task, AllowanceExhausted)

    run(act, tmp_path)
    assert not Hold.objects.exists()


def test_a_hold_that_is_swept_under_the_lock_is_settled_by_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(plan=Plan.BASIC)
    asked: dict[str, Any] = {"draws_allowance": True, "spends_credits": False}
    first, swept, behind = (desk.request(**asked) for _ in range(3))

    async def act(teller: Teller) -> None:
        counter = Counter(teller, desk)
        await counter.serve(first)
        assert isinstance(await teller.admit(swept), Admitted)
        swept.finished.outcome, swept.finished.output_tokens = UsageRecord.Outcome.COMPLETED, 9
        with locked(desk.account) as other:
            settling = asyncio.create_task(teller.settle(swept.finished))
            await counter.on_their_way(1)
            admitting = asyncio.create_task(teller.admit(behind))
            await counter.on_their_way(2)
            # What a sweep does, in short.
            other.execute("DELETE FROM billing_hold WHERE request_id = %s", [swept.finished.id])
            other.execute("UPDATE usage_dailyallowance SET held_tokens = 0, requests = requests - 1")
            other.execute("COMMIT")
        await settling
        assert isinstance(await admitting, Admitted)

    run(act, tmp_path)
    assert desk.allowance.requests == 2
    assert Hold.objects.get().pk == behind.finished.id
    assert not [record for record in caplog.records if record.name.startswith("gateway")]
