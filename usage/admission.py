"""What a request asks before it may go ahead, and what it can be told. Amounts are nano-USD, tokens whole numbers."""

import datetime as dt
import uuid
from dataclasses import dataclass

from billing.budgets import Scope
from catalog.pricing import TokenPrice
from usage.minutes import Minute, MinuteExhausted, MinuteState
from usage.recording import FinishedRequest


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What an `Idempotency-Key` claims: hexadecimal SHA-256 digests of the key, and of the endpoint and body."""

    digest: str
    body_digest: str


@dataclass(slots=True)  # not frozen: it is made for every request, and a frozen one costs three times as much
class Admission:
    """A request that asks to go ahead. Tokens are estimates except `input_bytes`, which no count can exceed."""

    finished: FinishedRequest  # what will be recorded if the process dies before the request ends
    key_version: int
    account_version: int
    process_id: uuid.UUID
    price: TokenPrice
    input_bytes: int
    input_tokens: int
    output_limit: int | None  # tokens of one choice, as the client named them
    max_output_tokens: int  # tokens of one choice that the model can write; 0: it writes none
    choices: int
    draws_allowance: bool
    spends_credits: bool
    requests_per_day: int
    tokens_per_day: int
    at: dt.datetime
    # It has been admitted before, for another model: that hold is taken back before this is decided.
    replaces: bool = False
    idempotency: Idempotency | None = None
    # Tokens it counts as in its key's minute. `minute`: what limits that; None where nothing does.
    minute_tokens: int = 0
    minute: Minute | None = None

    @property
    def least_output_tokens(self) -> int:
        """What one choice must be able to have, or the request is refused: what was asked, else a single token."""
        return self.output_limit or min(self.max_output_tokens, 1)

    def affordable_output_tokens(self, amount_nanousd: int) -> int:
        """The tokens of one choice that the amount pays for; as many as the model can write if output is free.

        Negative: not even the input.
        """
        tokens = self.price.affordable_output_tokens(
            available_nanousd=amount_nanousd, input_tokens=self.input_bytes
        )
        return self.max_output_tokens if tokens is None else tokens // self.choices

    def worst_cost_nanousd(self, output_tokens: int) -> int:
        """The most that it can cost with so many tokens for each choice."""
        return self.price.worst_cost_nanousd(
            input_tokens=self.input_bytes, output_tokens=output_tokens * self.choices
        )


@dataclass(slots=True)  # not frozen: made for every request, and a frozen one costs twice as much
class Admitted:
    """Go ahead, with at most this many output tokens a choice. `held_nanousd` is 0 where the allowance pays."""

    output_limit: int
    held_nanousd: int
    minute: MinuteState | None = None  # where it was judged here, with this request in it


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The key, its account or its plan has changed since the policy was read: read it again and judge anew."""


@dataclass(frozen=True, slots=True)
class CreditsInsufficient:
    """Too little credit. `affordable_tokens` is what one choice could have; negative: not even the input."""

    available_nanousd: int
    held_nanousd: int
    needed_nanousd: int
    affordable_tokens: int


@dataclass(frozen=True, slots=True)
class BudgetReached:
    """A budget leaves too little. `resets_at` is None for a limit in total; the tokens are as for credit."""

    scope: Scope
    limit_nanousd: int
    spent_nanousd: int
    held_nanousd: int
    period: str
    affordable_tokens: int
    resets_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class AllowanceExhausted:
    """Too little is left of the account's daily allowance for the input alone, and no credits may go on."""

    requests: int
    requests_limit: int
    tokens: int
    held_tokens: int
    input_tokens: int  # of this request
    tokens_limit: int
    resets_at: dt.datetime

    @property
    def would_fit_smaller(self) -> bool:
        """Whether a request with a shorter input would be served."""
        left = self.tokens_limit - self.tokens - self.held_tokens
        return self.requests < self.requests_limit and left > 1


@dataclass(frozen=True, slots=True)
class Repeated:
    """The idempotency key is taken by an earlier request, for the same body or for another one."""

    request_id: uuid.UUID
    is_same_body: bool


Decision = (
    Admitted
    | PolicyChanged
    | CreditsInsufficient
    | BudgetReached
    | AllowanceExhausted
    | Repeated
    | MinuteExhausted
)
