"""Acts on one wallet at the same moment, on connections of their own: nothing is given twice, and nothing is lost."""

import pytest
from django.contrib import admin
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts import plans
from accounts.admin import PlanAdmin
from accounts.models import Account, Plan
from billing import refunding
from billing.models import Dispute, Refund
from tests.billing.test_disputing import hear
from tests.billing.test_refunding import USD, balance, bought, refund
from tests.billing.test_topping_up import finish, start
from tests.concurrency import in_parallel
from tests.factories import make_account, make_budget, make_key, now
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage import budgeting
from usage.admission import Admitted

pytestmark = pytest.mark.django_db(transaction=True)
# What `Desk` charges a request for 100 tokens of input and 50 of output.
COST = 100 * 1_000 + 50 * 2_000


def test_refunds_at_once_give_back_a_payment_once() -> None:
    topup = bought()

    def act(number: int) -> bool:
        try:
            refund(topup, usd="15", reference=f"r-{number}")
        except refunding.NotRefundable:
            return False
        return True

    assert sum(in_parallel(act, times=6)) == 1
    assert Refund.objects.get().total_nanousd == 18_750_000_000
    assert balance(topup) == 5 * USD
    check_books(idle=True)


def test_a_dispute_beside_spending_freezes_what_was_not_spent_and_no_more() -> None:
    topup = bought()
    desk = Desk.of(make_key(topup.account).key)
    requests = [desk.request() for _ in range(7)]

    def act(number: int) -> bool:
        if number == len(requests):
            hear(topup, "open")
            return False
        (decision,) = desk.admit(requests[number])
        return isinstance(decision, Admitted) and desk.end(
            requests[number], input_tokens=100, output_tokens=50
        )

    served = sum(in_parallel(act, times=len(requests) + 1))
    dispute = Dispute.objects.get()
    assert balance(topup) == 20 * USD - dispute.frozen_nanousd - served * COST
    assert dispute.frozen_nanousd + dispute.loss_nanousd == 20 * USD
    check_books(idle=True)


def test_a_budget_that_changes_while_requests_come_counts_each_of_them() -> None:
    desk = Desk(credit="10")
    budget = make_budget(desk.account, limit_nanousd=10 * USD)
    requests = [desk.request() for _ in range(9)]

    def act(number: int) -> bool:
        if number < len(requests):
            (decision,) = desk.admit(requests[number])
            return isinstance(decision, Admitted)
        if number == len(requests):
            budgeting.remove_budget(budget=budget, actor=None)
        make_budget(desk.account, limit_nanousd=5 * COST, at=now())
        return False

    served = sum(in_parallel(act, times=len(requests) + 3))
    check_books()
    for request in requests:
        desk.end(request, input_tokens=100, output_tokens=50)
    made = desk.account.budgets.get()
    assert (made.spent_nanousd, made.held_nanousd) == (served * COST, 0)
    check_books(idle=True)


def test_a_first_payment_does_not_wait_for_a_plan_that_is_being_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would hold its account, which whoever changes the plan wants next: each would wait for the other."""
    topup, touch_policy = start(make_account()), plans.touch_policy

    def pay(_: int) -> str:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '3s'")
        return finish(topup).status

    def touch_after_a_payment(*, accounts: QuerySet[Account]) -> None:
        assert in_parallel(pay, times=1) == ["paid"]
        touch_policy(accounts=accounts)

    monkeypatch.setattr(plans, "touch_policy", touch_after_a_payment)
    basic = Plan.objects.get(slug=Plan.BASIC)
    PlanAdmin(Plan, admin.site).save_model(HttpRequest(), basic, form=None, change=True)
    assert Account.objects.get().plan.slug == Plan.PAY_AS_YOU_GO
    check_books(idle=True)
