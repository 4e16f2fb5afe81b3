"""Budgets that come and go while requests are admitted and settled on other connections."""

import pytest

from billing.models import Budget
from tests.concurrency import in_parallel
from tests.factories import make_budget, now
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage import budgeting, rollups
from usage.admission import Admitted

LIMIT = 10**9


@pytest.mark.django_db(transaction=True)
def test_a_budget_that_is_made_while_requests_come_and_end_counts_each_once() -> None:
    desk = Desk(credit="1")
    before = [desk.request() for _ in range(6)]
    desk.admit(*before)
    later = [desk.request() for _ in range(6)]

    def act(number: int) -> None:
        match number % 4:
            case 0:
                make_budget(desk.key if number else desk.account, limit_nanousd=LIMIT, period="month")
            case 1:
                assert isinstance(desk.admit(later[number // 4])[0], Admitted)
            case 2:
                assert desk.end(before[number // 4], output_tokens=10)
            case _:
                rollups.roll_up(at=now())

    in_parallel(act, times=16)

    for budget in Budget.objects.all():
        assert (budget.spent_nanousd, budget.held_nanousd) == (4 * 20_000, (2 + 4) * 300_000)
    check_books()


@pytest.mark.django_db(transaction=True)
def test_one_of_two_that_add_the_same_budget_changes_the_others() -> None:
    desk = Desk(credit="1")

    made = in_parallel(lambda number: make_budget(desk.account, limit_nanousd=number), times=4)

    assert len({budget.pk for budget in made}) == 1
    in_parallel(lambda number: budgeting.remove_budget(budget=made[number], actor=None), times=4)
    assert not Budget.objects.exists()
