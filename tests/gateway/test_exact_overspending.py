"""Nobody spends what they do not have, whatever runs in parallel on however many processes."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from accounts.models import Plan
from billing.models import Budget, Wallet
from catalog.models import Model
from tests.factories import make_budget, make_key
from tests.gateway.conftest import Stage, chat, wait_for
from usage.models import DailyAllowance, UsageRecord

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("four processes")]

PRICED = {"tier": Model.Tier.PREMIUM, "input_price": "0", "output_price": "1000"}  # $0.001 an output token


@pytest.mark.parametrize("is_streamed", [False, True], ids=["plain", "streamed"])
def test_of_fifty_parallel_requests_with_credit_for_three_exactly_three_are_served(
    crowd: Stage, is_streamed: bool
) -> None:
    model = crowd.model(**PRICED)
    account = crowd.account(credit="0.03")
    issued = make_key(account)
    # Long enough for all fifty to ask while the first three still hold what they will cost.
    answer = {"output_tokens": 10, "delay_ms": 1_500}
    body = chat(model, max_tokens=10, stream=is_streamed, sandbox=answer)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: crowd.post(issued.secret, body), range(50)))

    assert Counter(answer.status_code for answer in answers) == {200: 3, 402: 47}
    codes = {answer.json()["error"]["code"] for answer in answers if answer.status_code == 402}
    assert codes == {"insufficient_credits"}
    if is_streamed:
        assert all("[DONE]" in answer.text for answer in answers if answer.status_code == 200)
    wallet = Wallet.objects.get(account=account)
    assert (wallet.balance_nanousd, wallet.held_nanousd) == (0, 0)
    wait_for(lambda: UsageRecord.objects.filter(account=account).count() == 50)
    outcomes = Counter(UsageRecord.objects.filter(account=account).values_list("outcome", flat=True))
    assert outcomes == {"completed": 3, "refused": 47}


def test_nobody_overspends_a_wallet_a_key_limit_or_an_allowance(crowd: Stage) -> None:
    dear, basic = crowd.model(**PRICED), crowd.model(max_output_tokens=90_000)
    account = crowd.account(credit="0.05")
    free, limited = make_key(account), make_key(account)
    make_budget(limited.key, period=Budget.Period.TOTAL, limit_nanousd=20_000_000)
    newcomer = crowd.account(plan=Plan.BASIC)
    frugal = make_key(newcomer)
    spending = chat(dear, max_tokens=10, sandbox={"output_tokens": 10, "delay_ms": 800})
    drawing = chat(basic, max_tokens=60_000, sandbox={"output_tokens": 10, "delay_ms": 800})

    calls = [(limited, spending)] * 12 + [(free, spending)] * 12 + [(frugal, drawing)] * 8
    with ThreadPoolExecutor(len(calls)) as pool:
        answers = list(pool.map(lambda call: (call[0], crowd.post(call[0].secret, call[1])), calls))

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


def test_when_upstreams_use_more_than_was_held_the_wallet_ends_at_zero_and_the_rest_is_our_loss(
    crowd: Stage,
) -> None:
    model = crowd.model(**PRICED)
    account = crowd.account(credit="0.1")  # ten requests are held at $0.01, and cost $0.04
    issued = make_key(account)
    body = chat(model, max_tokens=10, stream=True, sandbox={"output_tokens": 40, "delay_ms": 800})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: crowd.post(issued.secret, body), range(20)))

    assert Counter(answer.status_code for answer in answers) == {200: 10, 402: 10}
    wallet = Wallet.objects.get(account=account)
    assert (wallet.balance_nanousd, wallet.held_nanousd) == (0, 0)
    wait_for(lambda: UsageRecord.objects.filter(account=account, outcome="completed").count() == 10)
    records = UsageRecord.objects.filter(account=account, outcome="completed")
    assert {record.cost_nanousd for record in records} == {40_000_000}
    assert sum(record.charged_nanousd for record in records) == 100_000_000
    assert sum(record.loss_nanousd for record in records) == 300_000_000
    assert all(record.charged_nanousd >= 10_000_000 for record in records)


@pytest.mark.parametrize("environment", ["", "staging"], ids=["account", "environment"])
def test_of_fifty_parallel_requests_with_a_budget_for_three_exactly_three_are_served(
    crowd: Stage, environment: str
) -> None:
    model = crowd.model(**PRICED)
    account = crowd.account(credit="10")
    limited = [make_key(account, environment="staging") for _ in range(2)]
    budget = make_budget(account, environment=environment, limit_nanousd=30_000_000)
    make_budget(account, period=Budget.Period.WEEK, limit_nanousd=10**12)
    body = chat(model, max_tokens=10, sandbox={"output_tokens": 10, "delay_ms": 1_500})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: crowd.post(limited[n % 2].secret, body), range(50)))

    assert Counter(answer.status_code for answer in answers) == {200: 3, 402: 47}
    errors = [answer.json()["error"] for answer in answers if answer.status_code == 402]
    assert {error["code"] for error in errors} == {"budget_reached"}
    named = f"the account's {environment} environment" if environment else "the account"
    assert all(error["message"].startswith(f"The budget of {named} is $0.03") for error in errors)
    budget.refresh_from_db()
    assert (budget.spent_nanousd, budget.held_nanousd) == (30_000_000, 0)
    # What the budget does not limit goes on.
    free = make_key(account, environment="production")
    assert crowd.post(free.secret, body).status_code == (200 if environment else 402)
