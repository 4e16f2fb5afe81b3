"""What a budget limits and counts: its scope, its period, and its state under the lock of the account's wallet.

A budget counts what its scope was charged for the requests that started in its period, and what those that still run
hold. A request belongs to the period it started in, however late it is admitted or ends. So a budget knows two periods,
the one that runs and the one before: around midnight requests of both come in any order.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from django.db.models import Q

from billing.models import Budget
from keys.models import ApiKey

# A limit in total has one period that never ends.
_BEGINNING = dt.date(2000, 1, 1)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose spending a budget limits: the account's, that of an environment of it, or that of a key."""

    account_id: int
    environment: str = ""
    key_id: int | None = None

    @classmethod
    def of_key(cls, key: ApiKey) -> Self:
        return cls(account_id=key.account_id, key_id=key.pk)

    @classmethod
    def of(cls, budget: Budget) -> Self:
        return cls(account_id=budget.account_id, environment=budget.environment, key_id=budget.key_id)

    @property
    def kind(self) -> Literal["key", "environment", "account"]:
        if self.key_id is not None:
            return "key"
        return "environment" if self.environment else "account"


@dataclass(slots=True)
class Counted:
    """What a budget counts in one of its periods, in nano-USD."""

    spent_nanousd: int = 0
    held_nanousd: int = 0


@dataclass(slots=True)
class BudgetState:
    """A budget under its wallet's lock. The period that runs began on `period_start`; `previous` is the one before."""

    id: int
    scope: Scope
    period: str
    limit_nanousd: int
    is_hard_stop: bool
    period_start: dt.date
    running: Counted = field(default_factory=Counted)
    previous: Counted = field(default_factory=Counted)
    is_changed: bool = False

    @classmethod
    def of(cls, row: Iterable[Any]) -> Self:
        """The budget of a row of `usage_open_books`."""
        id_, account_id, environment, key_id, period, limit, is_hard_stop, start, *figures = row
        return cls(
            id=id_,
            scope=Scope(account_id, environment, key_id),
            period=period,
            limit_nanousd=limit,
            is_hard_stop=is_hard_stop,
            period_start=dt.date.fromisoformat(start),
            running=Counted(*figures[:2]),
            previous=Counted(*figures[2:]),
        )

    def as_row(self) -> list[Any]:
        """The row that `of` takes."""
        scope, running, previous = self.scope, self.running, self.previous
        return [
            self.id,
            scope.account_id,
            scope.environment,
            scope.key_id,
            self.period,
            self.limit_nanousd,
            self.is_hard_stop,
            self.period_start.isoformat(),
            running.spent_nanousd,
            running.held_nanousd,
            previous.spent_nanousd,
            previous.held_nanousd,
        ]

    @classmethod
    def as_it_stands(cls, budget: Budget, *, day: dt.date) -> Self:
        """A budget as a reader sees it on that day, who locks nothing and writes nothing."""
        state = cls(
            id=budget.pk,
            scope=Scope.of(budget),
            period=budget.period,
            limit_nanousd=budget.limit_nanousd,
            is_hard_stop=budget.is_hard_stop,
            period_start=budget.period_start,
            running=Counted(budget.spent_nanousd, budget.held_nanousd),
            previous=Counted(budget.previous_spent_nanousd, budget.previous_held_nanousd),
        )
        state.turn_to(day)
        return state

    def turn_to(self, day: dt.date) -> None:
        """Begin again from zero if the day is in a later period."""
        start = period_start(period=self.period, day=day)
        if start <= self.period_start:
            return
        is_next = previous_start(period=self.period, start=start) == self.period_start
        self.previous = self.running if is_next else Counted()
        self.running, self.period_start = Counted(), start
        self.is_changed = True

    def counted(self, day: dt.date) -> Counted:
        """What is counted in the period of the day; nothing, and nothing to add to, where that is over for long."""
        start = period_start(period=self.period, day=day)
        if start == self.period_start:
            return self.running
        if start == previous_start(period=self.period, start=self.period_start):
            return self.previous
        return Counted()

    def remaining_nanousd(self, day: dt.date) -> int:
        counted = self.counted(day)
        return max(self.limit_nanousd - counted.spent_nanousd - counted.held_nanousd, 0)

    def change(self, day: dt.date, *, held_nanousd: int = 0, spent_nanousd: int = 0) -> None:
        """Add to what is counted in the period of the day."""
        counted = self.counted(day)
        counted.held_nanousd += held_nanousd
        counted.spent_nanousd += spent_nanousd
        self.is_changed = True


def of_key(*, account_id: int, environment: str, key_id: int, day: dt.date) -> list[BudgetState]:
    """Every budget that limits a key, as it stands on that day; the one that leaves the least comes first."""
    of_it = Q(key_id=key_id) | Q(key=None, environment__in=["", environment])
    found = Budget.objects.filter(of_it, account_id=account_id).order_by("pk")
    states = [BudgetState.as_it_stands(budget, day=day) for budget in found]
    return sorted(states, key=lambda state: state.remaining_nanousd(day))


def share_percent(budget: Budget) -> int:
    """How much of the limit is spent in the budget's period, in whole percent; a limit of zero has no share."""
    if not budget.limit_nanousd:
        return 0
    return (budget.spent_nanousd * 200 + budget.limit_nanousd) // (2 * budget.limit_nanousd)


def day_of(at: dt.datetime) -> dt.date:
    """The UTC day of a moment."""
    return at.astimezone(dt.UTC).date()


def midnight(day: dt.date) -> dt.datetime:
    """The moment at which a UTC day begins."""
    return dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC)


def period_start(*, period: str, day: dt.date) -> dt.date:
    """The first UTC day of the period the day is in; weeks begin on Monday."""
    match period:
        case Budget.Period.DAY:
            return day
        case Budget.Period.WEEK:
            return day - dt.timedelta(days=day.weekday())
        case Budget.Period.MONTH:
            return day.replace(day=1)
        case _:
            return _BEGINNING


def previous_start(*, period: str, start: dt.date) -> dt.date | None:
    """The first day of the period before the one that begins on `start`; None: there is none before."""
    if period == Budget.Period.TOTAL:
        return None
    return period_start(period=period, day=start - dt.timedelta(days=1))


def period_end(*, period: str, day: dt.date) -> dt.datetime | None:
    """When the period of the day ends and the limit is whole again, in UTC; None: never."""
    start = period_start(period=period, day=day)
    match period:
        case Budget.Period.DAY:
            after = start + dt.timedelta(days=1)
        case Budget.Period.WEEK:
            after = start + dt.timedelta(days=7)
        case Budget.Period.MONTH:
            after = (start + dt.timedelta(days=32)).replace(day=1)
        case _:
            return None
    return midnight(after)
