"""A batch whose books are others than were foreseen writes nothing, and is decided anew on what they are."""

import datetime as dt
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction

from accounts.models import Account, Plan
from billing import crediting
from billing.models import Budget, Hold, Wallet
from keys.models import ApiKey
from tests.factories import make_budget, now
from tests.gateway.conftest import wait_for
from tests.invariants import check_books
from tests.usage.clerk import Clerk
from tests.usage.desk import Desk
from usage import budgeting
from usage.admission import (
    Admission,
    Admitted,
    AllowanceExhausted,
    BudgetReached,
    Decision,
    Idempotency,
    PolicyChanged,
    Repeated,
)
from usage.minutes import Minute, MinuteExhausted
from usage.models import DailyAllowance, IdempotencyClaim, MinuteGap, UsageRecord

pytestmark = pytest.mark.django_db

USD = 10**9
CLAIM = Idempotency(digest="d" * 64, body_digest="b" * 64)
WRITTEN = (Wallet, Hold, UsageRecord, Budget, DailyAllowance, IdempotencyClaim, MinuteGap)
# As they lie in the table after this, whoever goes by that comes to the last account first.
_LIE_BACKWARDS = """
    WITH gone AS (DELETE FROM billing_wallet RETURNING *)
    INSERT INTO billing_wallet SELECT * FROM gone ORDER BY account_id DESC
"""


def written() -> list[Any]:
    """Every row that a batch can write."""
    return [list(model._default_manager.order_by("pk").values()) for model in WRITTEN]


def top_up(desk: Desk) -> None:
    crediting.grant(
        account=desk.account, amount_nanousd=USD, reason="a gift", actor=None, at=now(), reference="grant:1"
    )


def serve_elsewhere(desk: Desk) -> None:
    assert isinstance(desk.admit(desk.request())[0], Admitted)


def change_key(_: Desk) -> None:
    ApiKey.objects.update(policy_version=99)


def change_account(_: Desk) -> None:
    Account.objects.update(policy_version=99)


def leave_gap(desk: Desk) -> None:
    MinuteGap.objects.create(key_id=desk.key.pk, ends_at=now() + dt.timedelta(minutes=1))


def limit_key(desk: Desk) -> None:
    make_budget(desk.key, limit_nanousd=0)


def limit_account(desk: Desk) -> None:
    make_budget(desk.account, limit_nanousd=0)


def limit_environment(desk: Desk) -> None:
    make_budget(desk.account, environment=desk.key.environment, limit_nanousd=0)


def take_idempotency_key(desk: Desk) -> None:
    IdempotencyClaim.objects.create(
        key=desk.key, digest=CLAIM.digest, body_digest=CLAIM.body_digest, request_id=uuid.uuid4()
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (top_up, Admitted),
        (serve_elsewhere, Admitted),
        (change_key, PolicyChanged),
        (change_account, PolicyChanged),
        (leave_gap, MinuteExhausted),
        (limit_key, BudgetReached),
        (limit_account, BudgetReached),
        (limit_environment, BudgetReached),
        (take_idempotency_key, Repeated),
    ],
)
def test_a_change_by_somebody_else_is_seen(change: Callable[[Desk], None], expected: type[Decision]) -> None:
    desk, clerk = Desk(credit="1"), Clerk()
    held = desk.request()
    clerk.batch(held)
    late = desk.request(minute=Minute(1, None, 5, is_decided=True), idempotency=CLAIM)
    change(desk)
    decide_twice(clerk, late, held, expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: Budget.objects.update(limit_nanousd=USD),
        lambda budget: budgeting.remove_budget(budget=budget, actor=None),
        lambda _: Budget.objects.update(is_hard_stop=False),
        lambda _: ApiKey.objects.update(environment=ApiKey.Environment.STAGING),
    ],
    ids=["raised", "removed", "made an alert", "no longer the key's"],
)
def test_a_budget_that_refuses_no_longer_is_seen(change: Callable[[Budget], object]) -> None:
    desk, clerk = Desk(credit="1"), Clerk()
    budget = make_budget(desk.account, environment=desk.key.environment, limit_nanousd=0)
    assert isinstance(clerk.batch(desk.request())[0], BudgetReached)
    change(budget)
    late = desk.request()
    assert clerk.attempt(late) is None
    assert isinstance(clerk.batch(late)[0], Admitted)


@pytest.mark.parametrize("is_begun", [True, False])
def test_an_allowance_that_somebody_else_draws_is_seen(is_begun: bool) -> None:
    desk, clerk = Desk(plan=Plan.BASIC), Clerk()
    asked: dict[str, Any] = {"draws_allowance": True, "spends_credits": False, "requests_per_day": 2}
    held = desk.request(**asked, **({} if is_begun else {"tokens_per_day": 0}))
    assert isinstance(clerk.batch(held)[0], Admitted) == is_begun
    desk.admit(*(desk.request(**asked) for _ in range(2)))
    late, before = desk.request(**asked), written()
    assert clerk.attempt(late) is None
    assert written() == before
    assert isinstance(clerk.batch(late)[0], AllowanceExhausted)


def test_a_hold_of_an_allowance_that_was_swept_is_seen() -> None:
    desk, clerk = Desk(plan=Plan.BASIC), Clerk()
    held = desk.request(draws_allowance=True, spends_credits=False)
    clerk.batch(held)
    desk.end(held)
    before = written()
    held.finished.outcome, held.finished.output_tokens = UsageRecord.Outcome.COMPLETED, 9
    assert clerk.attempt(ended=[held.finished]) is None
    assert written() == before
    clerk.batch(ended=[held.finished])
    assert written() == before


@pytest.mark.parametrize(
    "of", [{"amount_nanousd": 1}, {"allowance_tokens": 1}, {"allowance_day": "2001-01-01"}]
)
def test_a_hold_that_is_another_than_was_foreseen_is_seen(of: dict[str, Any]) -> None:
    desk, clerk = Desk(credit="1"), Clerk()
    held, other = desk.request(), desk.request()
    clerk.batch(held, other)
    Hold.objects.filter(pk=held.finished.id).update(**of)
    before = written()
    assert clerk.attempt(ended=[other.finished, held.finished]) is None
    assert written() == before


def test_a_hold_that_was_not_foreseen_is_seen() -> None:
    desk, clerk = Desk(credit="1"), Clerk()
    held = desk.request()
    desk.admit(held)
    clerk.batch(desk.request())
    before = written()
    assert clerk.attempt(ended=[held.finished]) is None
    assert written() == before
    clerk.batch(ended=[held.finished])
    assert not Hold.objects.filter(pk=held.finished.id).exists()
    check_books()


@pytest.mark.parametrize("changed", [0, 1])
def test_of_a_batch_of_several_accounts_nothing_is_written_if_one_of_them_is_otherwise(changed: int) -> None:
    desks, clerk = [Desk(credit="1"), Desk(credit="1")], Clerk()
    clerk.batch(*(desk.request() for desk in desks))
    serve_elsewhere(desks[changed])
    asking, before = [desk.request() for desk in desks], written()
    assert clerk.attempt(*asking) is None
    assert written() == before
    assert [type(decision) for decision in clerk.batch(*asking)] == [Admitted, Admitted]
    assert Hold.objects.count() == 5
    check_books()


def test_a_batch_of_several_accounts_is_written_in_one_call() -> None:
    desks, clerk = [Desk(credit="1"), Desk(credit="2"), Desk(credit="3")], Clerk()
    held = [desk.request() for desk in desks]
    clerk.batch(*held)
    # One of the three only asks, one only settles.
    asking = [desks[0].request(), desks[2].request()]
    assert clerk.attempt(*asking, ended=[held[1].finished, held[2].finished]) is not None
    assert Hold.objects.count() == 3
    assert UsageRecord.objects.count() == 2
    check_books()


@pytest.mark.django_db(transaction=True)
def test_the_wallets_of_a_batch_are_locked_in_the_order_of_their_accounts() -> None:
    lower, higher = sorted((Desk(credit="1"), Desk(credit="1")), key=lambda desk: desk.account.pk)
    clerk = Clerk()
    clerk.batch(lower.request(), higher.request())
    asking = [higher.request(), lower.request()]
    with connection.cursor() as cursor:
        cursor.execute(_LIE_BACKWARDS)
    with ThreadPoolExecutor() as pool:
        with transaction.atomic():
            Wallet.objects.select_for_update().get(account=lower.account)
            attempt = pool.submit(attempt_apart, clerk, asking)
            wait_for(somebody_waits)
            # Nobody else has it yet.
            assert Wallet.objects.select_for_update(skip_locked=True).filter(account=higher.account).exists()
        assert attempt.result() is not None
    check_books()


def attempt_apart(clerk: Clerk, asking: list[Admission]) -> list[Decision] | None:
    """On a connection of its own."""
    try:
        return clerk.attempt(*asking)
    finally:
        connection.close()


def somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(cursor.fetchone()[0])


def decide_twice(clerk: Clerk, late: Admission, held: Admission, expected: type[Decision]) -> None:
    """As it was foreseen, which writes nothing, and then on what is so."""
    held.finished.outcome = UsageRecord.Outcome.FAILED
    before = written()
    assert clerk.attempt(late, ended=[held.finished]) is None
    assert written() == before
    assert [type(decision) for decision in clerk.batch(late, ended=[held.finished])] == [expected]
    assert Hold.objects.filter(pk=late.finished.id).exists() == (expected is Admitted)
    assert not Hold.objects.filter(pk=held.finished.id).exists()
    check_books()
