"""What a request asks before it may go ahead, and what it can be told. Amounts are nano-USD, tokens whole numbers."""

import datetime as dt
import uuid
from dataclasses import dataclass

from catalog.pricing import TokenPrice
from usage.recording import FinishedRequest


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Admitted:
    """Go ahead, with at most this many output tokens a choice. `held_nanousd` is 0 where the allowance pays."""

    output_limit: int
    held_nanousd: int


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
    """The key's own spend limit leaves too little. `resets_at` is None for a limit in total."""

    limit_nanousd: int
    spent_nanousd: int
    held_nanousd: int
    period: str
    affordable_tokens: int
    resets_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class AllowanceExhausted:
    """Nothing is left of the account's daily allowance, and no credits may go on."""

    requests: int
    requests_limit: int
    tokens: int
    held_tokens: int
    tokens_limit: int
    resets_at: dt.datetime


Decision = Admitted | PolicyChanged | CreditsInsufficient | BudgetReached | AllowanceExhausted
