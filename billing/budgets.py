"""A key's own spend limit: a hard stop, decided with the holds counted, under the lock of the account's wallet."""

import datetime as dt
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Sum

from accounts import auditing
from accounts.models import User
from billing import wallets
from billing.models import Budget, Hold
from catalog.money import usd_string
from keys.models import ApiKey

# A limit in total has one period that never ends.
_BEGINNING = dt.date(2000, 1, 1)


@dataclass(slots=True)
class BudgetState:
    """The budget of a key under its wallet's lock, in nano-USD."""

    key_id: int
    period: str
    limit_nanousd: int
    spent_nanousd: int
    held_nanousd: int
    period_start: dt.date
    is_changed: bool = False

    @property
    def remaining_nanousd(self) -> int:
        return max(self.limit_nanousd - self.spent_nanousd - self.held_nanousd, 0)

    def turn_to(self, day: dt.date) -> None:
        """Begin again from zero if the day is in a later period."""
        start = period_start(period=self.period, day=day)
        if start > self.period_start:
            self.period_start, self.spent_nanousd, self.held_nanousd = start, 0, 0
            self.is_changed = True

    def hold(self, amount_nanousd: int) -> None:
        self.held_nanousd += amount_nanousd
        self.is_changed = True

    def resolve(self, *, held_nanousd: int, spent_nanousd: int) -> None:
        """Count what a request spent instead of what it held."""
        self.held_nanousd -= held_nanousd
        self.spent_nanousd += spent_nanousd
        self.is_changed = True


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
    return dt.datetime.combine(after, dt.time(), tzinfo=dt.UTC)


def set_key_budget(
    *, key: ApiKey, period: str, limit_nanousd: int, actor: User | None, at: dt.datetime
) -> Budget:
    """Give the key a spend limit, or change it. A change of period begins a new one from zero; holds stay counted."""
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [key.account_id])
        start = period_start(period=period, day=at.astimezone(dt.UTC).date())
        budget, _ = Budget.objects.get_or_create(
            key=key,
            defaults={
                "account_id": key.account_id,
                "period": period,
                "limit_nanousd": limit_nanousd,
                "period_start": start,
            },
        )
        if budget.period != period:
            budget.spent_nanousd = 0
        budget.period, budget.period_start, budget.limit_nanousd = period, start, limit_nanousd
        # Requests that run now may have been counted by an earlier budget; theirs is what they will give
        # back.
        running = Hold.objects.filter(key=key, budget_period_start=start).aggregate(
            held=Sum("amount_nanousd")
        )
        budget.held_nanousd = running["held"] or 0
        budget.save()
        auditing.record(
            account=key.account_id,
            actor=actor,
            action="key.budget_set",
            subject_type="key",
            subject_id=key.pk,
            period=period,
            limit_usd=usd_string(limit_nanousd),
        )
    return budget


def clear_key_budget(*, key: ApiKey, actor: User | None) -> None:
    """Take the key's spend limit away."""
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [key.account_id])
        if Budget.objects.filter(key=key).delete()[0]:
            auditing.record(
                account=key.account_id,
                actor=actor,
                action="key.budget_cleared",
                subject_type="key",
                subject_id=key.pk,
            )
