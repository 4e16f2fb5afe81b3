"""Making, changing and removing budgets, and what they count from the start.

A budget counts its whole period, whenever it was made: what its scope was charged is summed up from usage under the
lock of the account's wallet, under which every request settles, and what running requests hold from their holds.
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.db.models import Q, Sum

from accounts import auditing
from accounts.models import User
from billing import wallets
from billing.budgets import Scope, day_of, midnight, period_end, period_start, previous_start, share_percent
from billing.models import Budget, Hold
from catalog.money import usd_string
from usage import live

_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)
_SPENT = """
    SELECT coalesce(sum(charged_nanousd) FILTER (WHERE hour >= %(running)s), 0)::bigint,
           coalesce(sum(charged_nanousd) FILTER (WHERE hour < %(running)s), 0)::bigint
    FROM narrowed
"""


def set_budget(
    *,
    scope: Scope,
    period: str,
    limit_nanousd: int,
    actor: User | None,
    at: dt.datetime,
    is_hard_stop: bool = True,
    alert_percents: Collection[int] = (),
) -> Budget:
    """Give the scope a budget for the period, or change the one it has."""
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [scope.account_id])
        identity = {**asdict(scope), "period": period}
        budget = Budget.objects.select_for_update().filter(**identity).first()
        if budget is None:
            budget = Budget(**identity)
            _count(budget, day=day_of(at))
        budget.limit_nanousd, budget.is_hard_stop = limit_nanousd, is_hard_stop
        budget.alert_percents = sorted(set(alert_percents))
        # What a higher limit has put off is told of again.
        budget.alerted_percent = min(budget.alerted_percent, share_percent(budget))
        budget.save()
        _record(
            budget,
            "budget_set",
            actor=actor,
            limit_usd=usd_string(limit_nanousd),
            is_hard_stop=is_hard_stop,
            alert_percents=budget.alert_percents,
        )
    return budget


def remove_budget(*, budget: Budget, actor: User | None) -> None:
    """Take a budget away; a second time does nothing."""
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [budget.account_id])
        if Budget.objects.filter(pk=budget.pk).delete()[0]:
            _record(budget, "budget_cleared", actor=actor)


def _count(budget: Budget, *, day: dt.date) -> None:
    """Count what the scope was charged and holds, in the period of the day and in the one before."""
    budget.period_start = period_start(period=budget.period, day=day)
    before = previous_start(period=budget.period, start=budget.period_start)
    running = midnight(budget.period_start)
    since = midnight(before) if before else running
    until = period_end(period=budget.period, day=day) or _NEVER
    budget.spent_nanousd, budget.previous_spent_nanousd = _spent(
        budget, since=since, running=running, until=until
    )
    holds = Hold.objects.filter(account_id=budget.account_id, placed_at__lt=until)
    if budget.key_id:
        holds = holds.filter(key_id=budget.key_id)
    elif budget.environment:
        holds = holds.filter(key__environment=budget.environment)
    held = holds.aggregate(
        running=Sum("amount_nanousd", filter=Q(placed_at__gte=running)),
        previous=Sum("amount_nanousd", filter=Q(placed_at__gte=since, placed_at__lt=running)),
    )
    budget.held_nanousd, budget.previous_held_nanousd = held["running"] or 0, held["previous"] or 0


def _spent(
    budget: Budget, *, since: dt.datetime, running: dt.datetime, until: dt.datetime
) -> tuple[int, int]:
    """What the scope was charged for requests that started since `running`, and between `since` and then."""
    filters = live.Filters(key_id=budget.key_id, environment=budget.environment or None)
    parameters = live.parameters(budget.account_id, since, until, filters)
    ((spent, previous),) = live.select(live.USED + _SPENT, {**parameters, "running": running})
    return spent, previous


def _record(budget: Budget, act: str, *, actor: User | None, **detail: Any) -> None:
    """In the history of the key that it limits, or else in the account's."""
    of = ("key", budget.key_id) if budget.key_id else ("account", budget.account_id)
    if budget.environment:
        detail["environment"] = budget.environment
    auditing.record(
        account=budget.account_id,
        actor=actor,
        action=f"{of[0]}.{act}",
        subject_type=of[0],
        subject_id=of[1],
        period=budget.period,
        **detail,
    )
