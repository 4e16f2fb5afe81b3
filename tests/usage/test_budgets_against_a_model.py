"""Any sequence of admissions, ends, budget changes and days: the teller counts what a simple model counts."""

import datetime as dt
from dataclasses import astuple, dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.budgets import BudgetState, Scope, day_of, midnight
from billing.models import Budget
from keys.models import ApiKey
from tests.factories import make_key
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage import budgeting, rollups
from usage.admission import Admission, Admitted, BudgetReached
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db

BEGINNING = dt.datetime(2026, 12, 28, 12, tzinfo=dt.UTC)  # the Monday before a year ends
INPUT_NANOUSD, TOKEN_NANOUSD = 100_000, 2_000


def period_of(period: str, at: dt.datetime) -> object:
    """What two moments of one period have in common."""
    if period == Budget.Period.DAY:
        return at.date()
    if period == Budget.Period.WEEK:
        return at.isocalendar()[:2]
    return (at.year, at.month) if period == Budget.Period.MONTH else None


@dataclass
class Remembered:
    """A request as the model knows it: what it holds, and then what it was charged."""

    admission: Admission
    key: ApiKey
    held: int
    spent: int = 0

    @property
    def at(self) -> dt.datetime:
        return self.admission.at


@dataclass
class Limit:
    scope: Scope
    period: str
    limit: int
    is_hard_stop: bool

    def has(self, key: ApiKey) -> bool:
        if self.scope.key_id is not None:
            return self.scope.key_id == key.pk
        return self.scope.environment in ("", key.environment)


@dataclass
class World:
    """The teller and the model of it, side by side."""

    desks: list[Desk]
    at: dt.datetime = BEGINNING
    requests: list[Remembered] = field(default_factory=list)
    running: list[Remembered] = field(default_factory=list)
    limits: dict[tuple[Scope, str], Limit] = field(default_factory=dict)

    def counted(self, limit: Limit, at: dt.datetime) -> tuple[int, int]:
        """Spent and held, in the period of a moment."""
        within = [
            request
            for request in self.requests
            if limit.has(request.key) and period_of(limit.period, request.at) == period_of(limit.period, at)
        ]
        return sum(request.spent for request in within), sum(request.held for request in within)

    def admit(self, which: int, minutes_ago: int, tokens: int) -> None:
        desk = self.desks[which]
        request = desk.request(
            at=self.at - dt.timedelta(minutes=minutes_ago), output_limit=tokens, max_output_tokens=5_000
        )
        worst = INPUT_NANOUSD + tokens * TOKEN_NANOUSD
        room = min(
            (
                limit.limit - sum(self.counted(limit, request.at))
                for limit in self.limits.values()
                if limit.is_hard_stop and limit.has(desk.key)
            ),
            default=worst,
        )
        (decision,) = desk.admit(request)
        assert isinstance(decision, Admitted if room >= worst else BudgetReached), (room, worst, decision)
        if isinstance(decision, Admitted):
            self.requests.append(Remembered(request, desk.key, held=worst))
            self.running.append(self.requests[-1])

    def end(self, which: int, tokens: int) -> None:
        """At its real cost, which may be more than it held; without any token it has failed."""
        if not self.running:
            return
        request = self.running.pop(which % len(self.running))
        outcome = UsageRecord.Outcome.COMPLETED if tokens else UsageRecord.Outcome.FAILED
        assert self.desks[0].end(request.admission, outcome=outcome, output_tokens=tokens)
        request.held, request.spent = 0, tokens * TOKEN_NANOUSD

    def limit(self, which: int, period: str, limit: int, is_hard_stop: bool) -> None:
        first, second = (desk.key for desk in self.desks)
        account = first.account_id
        scope = [
            Scope(account),
            Scope(account, environment="production"),
            Scope(account, environment="staging"),
            Scope.of_key(first),
            Scope.of_key(second),
        ][which]
        budgeting.set_budget(
            scope=scope, period=period, limit_nanousd=limit, is_hard_stop=is_hard_stop, actor=None, at=self.at
        )
        self.limits[scope, period] = Limit(scope, period, limit, is_hard_stop)

    def unlimit(self, which: int) -> None:
        if not self.limits:
            return
        scope, period = list(self.limits)[which % len(self.limits)]
        budget = Budget.objects.get(
            account_id=scope.account_id, environment=scope.environment, key_id=scope.key_id, period=period
        )
        budgeting.remove_budget(budget=budget, actor=None)
        del self.limits[scope, period]

    def wait(self, hours: int) -> None:
        self.at += dt.timedelta(hours=hours)

    def roll_up(self) -> None:
        rollups.roll_up(at=BEGINNING)

    def compare(self) -> None:
        for budget in Budget.objects.filter(account=self.desks[0].account):
            state = BudgetState.as_it_stands(budget, day=day_of(self.at))
            limit = self.limits[Scope.of(budget), budget.period]
            assert astuple(state.running) == self.counted(limit, self.at), budget
            if limit.period != Budget.Period.TOTAL:
                before = midnight(state.period_start) - dt.timedelta(hours=1)
                assert astuple(state.previous) == self.counted(limit, before), budget


def step(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


ANY = st.integers(0, 9)
ADMIT = step("admit", which=st.integers(0, 1), minutes_ago=st.integers(0, 90), tokens=st.integers(1, 500))
STEPS = st.lists(
    st.one_of(
        ADMIT,
        ADMIT,
        step("end", which=ANY, tokens=st.integers(0, 700)),
        step(
            "limit",
            which=st.integers(0, 4),
            period=st.sampled_from(Budget.Period.values),
            limit=st.integers(0, 3_000_000),
            is_hard_stop=st.booleans(),
        ),
        step("unlimit", which=ANY),
        step("wait", hours=st.sampled_from([12, 12, 1, 24, 24 * 7, 24 * 31])),
        step("roll_up"),
    ),
    min_size=15,
    max_size=40,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_budgets_count_and_stop_as_a_simple_model_does(steps: list[tuple[str, dict[str, Any]]]) -> None:
    desk = Desk(credit="1000")
    production = make_key(desk.account, environment=ApiKey.Environment.PRODUCTION).key
    staging = make_key(desk.account, environment=ApiKey.Environment.STAGING).key
    world = World([Desk.of(production), Desk.of(staging)])
    for name, arguments in steps:
        getattr(world, name)(**arguments)
        world.compare()
    check_books()
