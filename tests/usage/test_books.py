"""The decisions of a batch: who may go ahead, from what, and what ended requests cost."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Account, Plan
from billing import wallets
from billing.models import Budget, Hold
from catalog.pricing import TokenPrice
from tests.factories import make_budget, now
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage import opening
from usage.admission import (
    Admission,
    Admitted,
    AllowanceExhausted,
    BudgetReached,
    CreditsInsufficient,
    PolicyChanged,
)
from usage.models import DailyAllowance, UsageRecord

pytestmark = pytest.mark.django_db


def test_a_hold_is_the_worst_case_and_settles_at_the_real_cost() -> None:
    desk = Desk(credit="1")
    request = desk.request()

    (decision,) = desk.admit(request)

    assert decision == Admitted(output_limit=100, held_nanousd=100 * 1_000 + 100 * 2_000)
    assert desk.wallet.held_nanousd == 300_000
    assert desk.end(request, input_tokens=30, cached_input_tokens=10, output_tokens=40)
    cost = 20 * 1_000 + 10 * 100 + 40 * 2_000
    assert (desk.wallet.balance_nanousd, desk.wallet.held_nanousd) == (1_000_000_000 - cost, 0)
    assert UsageRecord.objects.get().charged_nanousd == cost
    check_books(idle=True)


def test_a_request_is_settled_once_however_often_it_is_told() -> None:
    desk = Desk(credit="1")
    request = desk.request()
    desk.admit(request)

    told = [desk.end(request, input_tokens=30, output_tokens=40) for _ in range(3)]

    assert told == [True, False, False]
    assert desk.wallet.balance_nanousd == 1_000_000_000 - 110_000
    check_books(idle=True)


def test_what_produced_nothing_costs_nothing() -> None:
    desk = Desk(credit="1")
    for draws_allowance in (False, True):
        request = desk.request(draws_allowance=draws_allowance)
        desk.admit(request)
        desk.end(request, outcome=UsageRecord.Outcome.FAILED, input_tokens=30)

    assert desk.wallet.available_nanousd == 1_000_000_000
    assert (desk.allowance.requests, desk.allowance.tokens, desk.allowance.held_tokens) == (0, 0, 0)
    check_books(idle=True)


def test_an_embedding_costs_its_input_though_it_writes_nothing() -> None:
    desk = Desk(credit="1")
    request = desk.request(endpoint="embeddings", max_output_tokens=0, output_limit=None)

    assert desk.admit(request) == [Admitted(output_limit=0, held_nanousd=100_000)]
    desk.end(request, input_tokens=30)

    assert desk.wallet.balance_nanousd == 1_000_000_000 - 30_000


def test_requests_of_one_batch_see_what_the_others_hold() -> None:
    desk = Desk(credit="0.0007")  # two holds of 300,000 nano-USD and a bit

    decisions = desk.admit(*[desk.request() for _ in range(4)])

    assert [type(decision) for decision in decisions] == [
        Admitted,
        Admitted,
        CreditsInsufficient,
        CreditsInsufficient,
    ]
    refused = decisions[-1]
    assert isinstance(refused, CreditsInsufficient)
    assert (refused.available_nanousd, refused.held_nanousd, refused.needed_nanousd) == (
        100_000,
        600_000,
        300_000,
    )
    assert refused.affordable_tokens == 0


def test_without_a_limit_the_output_is_what_the_wallet_affords() -> None:
    desk = Desk(credit="0.0007")

    (decision,) = desk.admit(desk.request(output_limit=None))

    assert decision == Admitted(output_limit=300, held_nanousd=700_000)


def test_several_choices_share_what_is_affordable() -> None:
    desk = Desk(credit="0.0007")

    (decision,) = desk.admit(desk.request(output_limit=None, choices=2))

    assert decision == Admitted(output_limit=150, held_nanousd=700_000)


def test_a_free_model_needs_no_credit() -> None:
    desk = Desk()
    free = TokenPrice(input_micro=0, output_micro=0, cached_input_micro=0, cache_write_micro=0)

    (decision,) = desk.admit(desk.request(price=free, output_limit=None))

    assert decision == Admitted(output_limit=1_000, held_nanousd=0)


def change_key(desk: Desk) -> None:
    type(desk.key).objects.filter(pk=desk.key.pk).update(policy_version=99)


def change_account(desk: Desk) -> None:
    Account.objects.filter(pk=desk.account.pk).update(policy_version=99)


@pytest.mark.parametrize("change", [change_key, change_account])
def test_a_policy_that_has_changed_meanwhile_admits_nothing(change: Callable[[Desk], None]) -> None:
    desk = Desk(credit="1")
    request = desk.request()
    change(desk)

    assert desk.admit(request) == [PolicyChanged()]
    assert not Hold.objects.exists()


def test_an_allowance_pays_first_and_its_own_estimate_is_corrected() -> None:
    desk = Desk(credit="1")
    request = desk.request(draws_allowance=True)

    assert desk.admit(request) == [Admitted(output_limit=100, held_nanousd=0)]
    assert (desk.allowance.requests, desk.allowance.tokens, desk.allowance.held_tokens) == (1, 0, 125)
    desk.end(request, input_tokens=30, output_tokens=40)

    assert (desk.allowance.requests, desk.allowance.tokens, desk.allowance.held_tokens) == (1, 70, 0)
    record = UsageRecord.objects.get()
    assert (record.cost_nanousd, record.charged_nanousd, record.allowance_tokens) == (110_000, 0, 70)
    check_books(idle=True)


def test_an_allowance_that_is_too_small_gives_way_to_credits() -> None:
    desk = Desk(credit="1")
    DailyAllowance.objects.create(account=desk.account, day=now().date(), tokens=199_950)

    assert desk.admit(desk.request(draws_allowance=True)) == [
        Admitted(output_limit=100, held_nanousd=300_000)
    ]


def test_an_allowance_that_is_too_small_cuts_the_output_where_there_are_no_credits() -> None:
    desk = Desk(plan=Plan.BASIC)
    DailyAllowance.objects.create(account=desk.account, day=now().date(), tokens=199_950)

    (decision,) = desk.admit(desk.request(draws_allowance=True, spends_credits=False))

    assert decision == Admitted(output_limit=25, held_nanousd=0)


@pytest.mark.parametrize("used", [{"tokens": 199_980}, {"requests": 7_200}])
def test_an_exhausted_allowance_refuses_until_midnight(used: dict[str, int]) -> None:
    desk = Desk(plan=Plan.BASIC)
    DailyAllowance.objects.create(account=desk.account, day=now().date(), **used)

    (decision,) = desk.admit(desk.request(draws_allowance=True, spends_credits=False))

    assert isinstance(decision, AllowanceExhausted)
    assert decision.resets_at.date() == now().date() + dt.timedelta(days=1)
    assert not Hold.objects.exists()


def test_an_exhausted_allowance_with_too_little_credit_says_so_about_the_allowance() -> None:
    desk = Desk(credit="0.0000001")
    DailyAllowance.objects.create(account=desk.account, day=now().date(), requests=7_200)

    (decision,) = desk.admit(desk.request(draws_allowance=True))

    assert isinstance(decision, AllowanceExhausted)


def test_an_exhausted_allowance_does_not_hide_that_credit_pays_for_a_smaller_request() -> None:
    desk = Desk(credit="0.0002")
    DailyAllowance.objects.create(account=desk.account, day=now().date(), requests=7_200)

    (decision,) = desk.admit(desk.request(draws_allowance=True))

    assert isinstance(decision, CreditsInsufficient)
    assert decision.affordable_tokens > 0
    smaller = desk.request(draws_allowance=True, output_limit=decision.affordable_tokens)
    assert isinstance(desk.admit(smaller)[0], Admitted)


def test_an_exhausted_allowance_does_not_hide_a_key_limit() -> None:
    desk = Desk(credit="1")
    DailyAllowance.objects.create(account=desk.account, day=now().date(), requests=7_200)
    make_budget(desk.key, period=Budget.Period.TOTAL, limit_nanousd=1)

    (decision,) = desk.admit(desk.request(draws_allowance=True))

    assert isinstance(decision, BudgetReached)


def test_a_key_limit_counts_what_is_held_and_what_was_spent() -> None:
    desk = Desk(credit="1")
    make_budget(desk.key, period=Budget.Period.TOTAL, limit_nanousd=650_000)
    first, second, third = (desk.request() for _ in range(3))

    decisions = desk.admit(first, second, third)

    assert [type(decision) for decision in decisions] == [Admitted, Admitted, BudgetReached]
    refused = decisions[-1]
    assert isinstance(refused, BudgetReached)
    assert (refused.limit_nanousd, refused.held_nanousd, refused.resets_at) == (650_000, 600_000, None)
    desk.end(first, input_tokens=1, output_tokens=1)
    budget = Budget.objects.get()
    assert (budget.spent_nanousd, budget.held_nanousd) == (3_000, 300_000)
    check_books()


def test_a_key_limit_cuts_the_output_of_a_request_that_names_none() -> None:
    desk = Desk(credit="1")
    make_budget(desk.key, period=Budget.Period.TOTAL, limit_nanousd=200_000)

    assert desk.admit(desk.request(output_limit=None)) == [Admitted(output_limit=50, held_nanousd=200_000)]


def test_the_first_requests_of_accounts_without_a_wallet_make_one() -> None:
    desks = [Desk(), Desk(credit="1")]
    requests = [desk.request() for desk in desks]

    decisions = desks[0].admit(*requests)

    assert [type(decision) for decision in decisions] == [CreditsInsufficient, Admitted]
    assert desks[0].wallet.balance_nanousd == 0


def test_a_settlement_shares_a_batch_with_the_first_request_of_an_account() -> None:
    old, newcomer = Desk(credit="1"), Desk()
    running = old.request()
    old.admit(running)
    running.finished.outcome = UsageRecord.Outcome.COMPLETED
    running.finished.output_tokens = 10

    with transaction.atomic():
        opened = opening.open_books(
            wallets.borrowed_connection(), admissions=[newcomer.request()], ended=[running.finished]
        )
        assert opened.end(running.finished)
        opened.write(wallets.borrowed_connection())

    assert old.wallet.balance_nanousd == 1_000_000_000 - 20_000
    check_books(idle=True)


def test_more_than_the_hold_comes_from_what_is_available_and_the_rest_is_our_loss() -> None:
    desk = Desk(credit="0.0004")
    request = desk.request()
    desk.admit(request)

    desk.end(request, input_tokens=100, output_tokens=1_000)

    record = UsageRecord.objects.get()
    assert (record.cost_nanousd, record.charged_nanousd, record.loss_nanousd) == (
        2_100_000,
        400_000,
        1_700_000,
    )
    assert desk.wallet.balance_nanousd == 0
    check_books(idle=True)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "end", "fail", "again"]),
        st.integers(0, 5_000),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_sequence_of_requests_breaks_the_books(steps: list[tuple[str, int, bool]]) -> None:
    desk = Desk(credit="0.004")
    make_budget(desk.key, period=Budget.Period.DAY, limit_nanousd=3_000_000)
    running: list[Admission] = []
    ended: list[Admission] = []
    for step, tokens, draws_allowance in steps:
        if step == "admit":
            request = desk.request(
                output_limit=tokens or None, max_output_tokens=5_000, draws_allowance=draws_allowance
            )
            if isinstance(desk.admit(request)[0], Admitted):
                running.append(request)
        elif step == "again" and ended:
            assert not desk.end(ended[0], output_tokens=tokens)
        elif running:
            ended.append(running.pop())
            outcome = UsageRecord.Outcome.COMPLETED if step == "end" else UsageRecord.Outcome.FAILED
            assert desk.end(ended[-1], outcome=outcome, output_tokens=tokens if step == "end" else 0)
    holds = Hold.objects.filter(account=desk.account).values_list("amount_nanousd", flat=True)
    assert desk.wallet.held_nanousd == sum(holds)
    check_books()
