"""What a key may still do: the smallest of all that limits it, and which limit that is."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from billing.budgets import BudgetState, period_end
from catalog.money import usd_string
from gateway.counted import Counted
from usage.queries import AllowanceFacts

_CREDITS = "credits"
_BUDGETS = {"key": "key_limit", "environment": "environment_budget", "account": "account_budget"}
_MINUTE = "minute"
_DAILY_ALLOWANCE = "daily_allowance"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit and what is left of it: nano-USD, requests or tokens. `resets_at` is None for what never frees."""

    name: str
    remaining: int
    limit: int
    resets_at: dt.datetime | None = None

    @property
    def share(self) -> float:
        return self.remaining / self.limit if self.limit > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Funds:
    """What pays for premium models, and for what goes beyond the day's allowance. Nano-USD.

    Credit has no limit but what was ever credited. `stops` are the budgets that refuse, as they stand on `day`.
    """

    spends_credits: bool
    available: int
    credited: int
    stops: Sequence[BudgetState]
    day: dt.date

    def limits(self) -> list[Limit]:
        credit = Limit(_CREDITS, max(self.available, 0), self.credited)
        return [credit, *map(self._of_budget, self.stops)]

    def _of_budget(self, budget: BudgetState) -> Limit:
        return Limit(
            _BUDGETS[budget.scope.kind],
            budget.remaining_nanousd(self.day),
            budget.limit_nanousd,
            period_end(period=budget.period, day=self.day),
        )


def effective_remaining(*, funds: Funds, minute: Counted | None, allowance: AllowanceFacts) -> dict[str, Any]:
    """`effective_remaining` of `GET /v1/key`. USD are exact strings; null means that nothing limits it.

    The allowance is no limit as long as money goes on behind it, and money is none for a plan that spends none.
    """
    money = funds.limits()
    tightest = min(money, key=_remaining)
    goes_on = funds.spends_credits and tightest.remaining > 0
    requests, tokens = _of_minute(minute)
    if not goes_on:
        requests.append(
            _left(_DAILY_ALLOWANCE, allowance.requests_limit, allowance.requests),
        )
        tokens.append(
            _left(_DAILY_ALLOWANCE, allowance.tokens_limit, allowance.tokens + allowance.held_tokens)
        )
    binding = [tightest] if funds.spends_credits else []
    binding += [min(of_a_kind, key=_remaining) for of_a_kind in (requests, tokens) if of_a_kind]
    return {
        "usd": usd_string(tightest.remaining),
        "usd_limited_by": tightest.name,
        "usd_frees_at": tightest.resets_at and tightest.resets_at.isoformat(),
        "requests": _tightest(requests),
        "tokens": _tightest(tokens),
        "limited_by": min(binding, key=lambda limit: limit.share).name,
    }


def _of_minute(minute: Counted | None) -> tuple[list[Limit], list[Limit]]:
    """The limits of requests and of tokens that the minute has."""
    if minute is None:
        return [], []
    requests = minute.limit_requests
    tokens = minute.limit_tokens
    return (
        [] if requests is None else [_left(_MINUTE, requests, minute.requests)],
        [] if tokens is None else [_left(_MINUTE, tokens, minute.tokens)],
    )


def _remaining(limit: Limit) -> int:
    return limit.remaining


def _left(name: str, limit: int, used: int) -> Limit:
    return Limit(name, max(limit - used, 0), limit)


def _tightest(limits: list[Limit]) -> dict[str, Any] | None:
    if not limits:
        return None
    tightest = min(limits, key=_remaining)
    return {"remaining": tightest.remaining, "limited_by": tightest.name}
