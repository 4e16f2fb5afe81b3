"""What a key may still do: the smallest of all that limits it, and which limit that is."""

from dataclasses import dataclass
from typing import Any

from catalog.money import usd_string
from gateway.windows import Counted
from usage.queries import AllowanceFacts

_CREDITS = "credits"
_KEY_LIMIT = "key_limit"
_MINUTE = "minute"
_DAILY_ALLOWANCE = "daily_allowance"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit and what is left of it: nano-USD, requests or tokens."""

    name: str
    remaining: int
    limit: int

    @property
    def share(self) -> float:
        return self.remaining / self.limit if self.limit > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Funds:
    """What pays for premium models, and for what goes beyond the day's allowance. Nano-USD.

    Credit has no limit but what was ever credited. `key_limit` is None for a key without a limit of its own.
    """

    spends_credits: bool
    available: int
    credited: int
    key_limit: int | None
    key_remaining: int | None

    def limits(self) -> list[Limit]:
        credit = Limit(_CREDITS, max(self.available, 0), self.credited)
        if self.key_limit is None or self.key_remaining is None:
            return [credit]
        return [credit, Limit(_KEY_LIMIT, self.key_remaining, self.key_limit)]


def effective_remaining(*, funds: Funds, minute: Counted | None, allowance: AllowanceFacts) -> dict[str, Any]:
    """`effective_remaining` of `GET /v1/key`. USD are exact strings; null means that nothing limits it.

    The allowance is no limit as long as money goes on behind it, and money is none for a plan that spends none.
    """
    money = funds.limits()
    tightest = min(money, key=lambda limit: limit.remaining)
    goes_on = funds.spends_credits and tightest.remaining > 0
    requests, tokens = _of_minute(minute)
    if not goes_on:
        requests.append(
            _left(_DAILY_ALLOWANCE, allowance.requests_limit, allowance.requests),
        )
        tokens.append(
            _left(_DAILY_ALLOWANCE, allowance.tokens_limit, allowance.tokens + allowance.held_tokens)
        )
    binding = [*(money if funds.spends_credits else ()), *requests, *tokens]
    return {
        "usd": usd_string(tightest.remaining),
        "usd_limited_by": tightest.name,
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


def _left(name: str, limit: int, used: int) -> Limit:
    return Limit(name, max(limit - used, 0), limit)


def _tightest(limits: list[Limit]) -> dict[str, Any] | None:
    if not limits:
        return None
    tightest = min(limits, key=lambda limit: limit.remaining)
    return {"remaining": tightest.remaining, "limited_by": tightest.name}
