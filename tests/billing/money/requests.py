"""Requests and budgets: what each admission, settlement and sweep does to the purse and to what budgets count."""

import datetime as dt
import uuid
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from billing.budgets import BudgetState, Scope, day_of
from billing.models import Budget, GatewayProcess
from catalog.pricing import TokenPrice
from keys.models import ApiKey
from tests import factories
from tests.billing.money.acting import ANY, KILL, Acting
from tests.usage.desk import Desk
from tests.usage.watching import watch
from usage import budgeting, posting, rollups, sweeping
from usage.admission import Admission, Admitted
from usage.models import UsageRecord

# A token of output costs about a cent, and nothing is a whole number of cents.
PRICE = TokenPrice(
    input_micro=1_234_567, output_micro=10_000_001_000, cached_input_micro=0, cache_write_micro=0
)
ALIVE, DEAD = uuid.uuid4(), uuid.uuid4()
# The two statements of a batch: it is opened, and written.
KILL_BATCH = st.none() | st.none() | st.integers(1, 2)
PERIODS = [Budget.Period.TOTAL, Budget.Period.DAY, Budget.Period.MONTH]


def cost_of(input_tokens: int, output_tokens: int) -> int:
    """In nano-USD, rounded up once; what produced nothing is free."""
    if not output_tokens:
        return 0
    return -(-(input_tokens * PRICE.input_micro + output_tokens * PRICE.output_micro) // 1000)


@dataclass
class Request:
    """A request as the model knows it: what it holds, and then what it was charged."""

    admission: Admission
    key: ApiKey
    held: int
    is_orphan: bool
    spent: int = 0


@dataclass
class Limit:
    scope: Scope
    period: str
    nanousd: int
    is_hard_stop: bool

    def counts(self, request: Request, at: dt.datetime) -> bool:
        """Whether the request is one of its scope, and of the period of the moment."""
        began = request.admission.at
        within = {
            Budget.Period.TOTAL: True,
            Budget.Period.DAY: began.date() == at.date(),
            Budget.Period.MONTH: (began.year, began.month) == (at.year, at.month),
        }
        return within[Budget.Period(self.period)] and self.has(request.key)

    def has(self, key: ApiKey) -> bool:
        return self.scope.key_id in (None, key.pk) and self.scope.environment in ("", key.environment)


class Requests(Acting):
    """Holds, settlements, releases, sweeps, roll-ups, postings and budgets."""

    def __init__(self) -> None:
        super().__init__()
        environments = (ApiKey.Environment.PRODUCTION, ApiKey.Environment.STAGING)
        keys = [factories.make_key(self.account, environment=environment).key for environment in environments]
        self.desks = [Desk.of(key) for key in keys]
        self.requests: list[Request] = []
        self.running: list[Request] = []
        self.limits: dict[tuple[Scope, str], Limit] = {}
        self.not_rolled_up = 0
        now = factories.now()
        GatewayProcess.objects.create(id=ALIVE, heartbeat_at=now + dt.timedelta(days=1))
        GatewayProcess.objects.create(id=DEAD, heartbeat_at=now - dt.timedelta(minutes=10))

    @rule(
        which=st.integers(0, 1),
        percent=st.sampled_from([100, 1, 30, 90, 110]),
        is_orphan=st.booleans(),
        kill=KILL_BATCH,
    )
    def admit(self, which: int, percent: int, is_orphan: bool, kill: int | None) -> None:
        """So much of what is available: exactly when the purse and every budget have room for the worst."""
        tokens = max(1, (self.purse.available * percent // 100 - cost_of(100, 1)) // cost_of(0, 1))
        desk = self.desks[which]
        request = desk.request(
            at=self.at,
            price=PRICE,
            output_limit=tokens,
            max_output_tokens=10**6,
            process_id=DEAD if is_orphan else ALIVE,
        )
        worst = cost_of(100, tokens)
        limits = [limit for limit in self.limits.values() if limit.is_hard_stop and limit.has(desk.key)]
        room = min([self.purse.available, *(limit.nanousd - sum(self.counted(limit)) for limit in limits)])
        (decision,) = self.once(lambda: desk.admit(request), kill)
        assert isinstance(decision, Admitted) == (room >= worst), (room, worst, decision)
        if isinstance(decision, Admitted):
            assert decision.held_nanousd == worst
            self.purse.held += worst
            self.running.append(Request(request, desk.key, worst, is_orphan))
            self.requests.append(self.running[-1])

    @precondition(lambda self: bool(self.running))
    @rule(
        which=ANY, percent=st.sampled_from([100, 0, 1, 60, 130, 900]), repeats=st.booleans(), kill=KILL_BATCH
    )
    def end(self, which: int, percent: int, repeats: bool, kill: int | None) -> None:
        """At its real cost, as so much of its limit: nothing, less than it held, or more than there is."""
        request = self.running.pop(which % len(self.running))
        tokens = -(-(request.admission.output_limit or 0) * percent // 100)
        outcome = UsageRecord.Outcome.COMPLETED if tokens else UsageRecord.Outcome.FAILED
        desk = self.desks[0]
        assert self.once(
            lambda: desk.end(request.admission, outcome=outcome, input_tokens=77, output_tokens=tokens), kill
        )
        self._resolve(request, cost_of(77, tokens))
        if repeats:
            assert not desk.end(request.admission, outcome=outcome, input_tokens=77, output_tokens=tokens)

    @precondition(lambda self: any(request.is_orphan for request in self.running))
    @rule(kill=KILL)
    def sweep(self, kill: int | None) -> None:
        """Dead processes lose their holds, and their requests cost nothing; a late settlement finds nothing."""
        watch()
        self.surely(lambda: sweeping.sweep(at=self.at), kill)
        orphans = [request for request in self.running if request.is_orphan]
        for request in orphans:
            self._resolve(request, 0)
            assert not self.desks[0].end(request.admission, output_tokens=5)
        self.running = [request for request in self.running if not request.is_orphan]

    @precondition(lambda self: bool(self.requests))
    @rule(kill=KILL)
    def roll_up(self, kill: int | None) -> None:
        self.surely(lambda: rollups.roll_up(at=self.at), kill)
        self.platform.lost_on_usage += self.not_rolled_up
        self.not_rolled_up = 0

    @precondition(lambda self: bool(self.requests))
    @rule(kill=KILL)
    def post(self, kill: int | None) -> None:
        self.surely(lambda: posting.post_hours(at=self.at), kill)

    @rule(
        which=st.integers(0, 4),
        period=st.sampled_from(PERIODS),
        cents=st.integers(0, 6_000),
        is_hard_stop=st.booleans(),
        kill=KILL,
    )
    def limit(self, which: int, period: str, cents: int, is_hard_stop: bool, kill: int | None) -> None:
        """Set, raised or lowered."""
        account = self.account.pk
        scope = [
            Scope(account),
            Scope(account, environment="production"),
            Scope(account, environment="staging"),
            Scope.of_key(self.desks[0].key),
            Scope.of_key(self.desks[1].key),
        ][which]
        limit = Limit(scope, period, cents * 10**7, is_hard_stop)
        self.surely(
            lambda: budgeting.set_budget(
                scope=scope,
                period=period,
                limit_nanousd=limit.nanousd,
                is_hard_stop=is_hard_stop,
                actor=None,
                at=self.at,
            ),
            kill,
        )
        self.limits[scope, period] = limit

    @precondition(lambda self: bool(self.limits))
    @rule(which=ANY, kill=KILL)
    def unlimit(self, which: int, kill: int | None) -> None:
        scope, period = list(self.limits)[which % len(self.limits)]
        budget = Budget.objects.get(
            account_id=scope.account_id, environment=scope.environment, key_id=scope.key_id, period=period
        )
        self.surely(lambda: budgeting.remove_budget(budget=budget, actor=None), kill)
        del self.limits[scope, period]

    def counted(self, limit: Limit) -> tuple[int, int]:
        """Spent and held in the period that runs."""
        within = [request for request in self.requests if limit.counts(request, self.at)]
        return sum(request.spent for request in within), sum(request.held for request in within)

    def compare_budgets(self) -> None:
        budgets = list(Budget.objects.filter(account=self.account))
        assert len(budgets) == len(self.limits)
        for budget in budgets:
            running = BudgetState.as_it_stands(budget, day=day_of(self.at)).running
            expected = self.counted(self.limits[Scope.of(budget), budget.period])
            assert (running.spent_nanousd, running.held_nanousd) == expected, budget

    def _resolve(self, request: Request, cost: int) -> None:
        request.spent = self.purse.settle(request.held, cost)
        request.held = 0
        self.not_rolled_up += cost - request.spent
