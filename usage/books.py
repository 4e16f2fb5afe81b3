"""The locked accounts of one batch of requests: who may go ahead, and what the ended ones cost.

This is where nobody overspends. A batch is one transaction: `open_books` locks the wallets, re-reads what the
decisions rest on and takes the holds of the ended requests away; `admit` and `end` decide in memory; `write`
puts it all back. What takes a hold away is `DELETE … RETURNING`, so a request is resolved by whoever gets its
row, once.
"""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from billing import budgets, wallets
from billing.budgets import BudgetCorrection, BudgetState
from billing.wallets import Connection, WalletState
from usage import recording
from usage.admission import (
    Admission,
    Admitted,
    AllowanceExhausted,
    BudgetReached,
    CreditsInsufficient,
    Decision,
    PolicyChanged,
)
from usage.recording import FinishedRequest

# What an allowance reserves of a request that names no limit: enough for a long answer, and little enough
# that a free account can have several requests running.
ALLOWANCE_OUTPUT_TOKENS = 16_384
# An allowance that has less than this left serves a request only if no credits can.
_USEFUL_OUTPUT_TOKENS = 256

_VERSIONS = """
    SELECT k.id, k.policy_version, a.policy_version FROM keys_apikey k JOIN accounts_account a ON a.id = k.account_id
    WHERE k.id = ANY(%s)
"""
_ALLOWANCES = """
    SELECT account_id, day, requests, tokens, held_tokens FROM usage_dailyallowance
    WHERE account_id = ANY(%s) AND day = ANY(%s)
"""
_TAKE_HOLDS = """
    DELETE FROM billing_hold WHERE request_id = ANY(%s)
    RETURNING request_id, account_id, key_id, amount_nanousd, allowance_day, allowance_tokens,
    budget_period_start
"""
_PLACE_HOLDS = """
    INSERT INTO billing_hold (request_id, account_id, key_id, process_id, amount_nanousd, allowance_day,
        allowance_tokens, budget_period_start, request, placed_at)
    SELECT request_id, account_id, key_id, process_id, amount_nanousd, allowance_day, allowance_tokens,
        budget_period_start, request, placed_at
    FROM json_populate_recordset(NULL::billing_hold, %s::json)
"""
_BEGIN_ALLOWANCES = """
    INSERT INTO usage_dailyallowance (account_id, day, requests, tokens, held_tokens, share)
    SELECT *, 0, 0, 0, 0 FROM unnest(%s::bigint[], %s::date[]) ON CONFLICT DO NOTHING
"""
_CHANGE_ALLOWANCES = """
    UPDATE usage_dailyallowance d SET requests = d.requests + n.requests, tokens = d.tokens + n.tokens,
        held_tokens = d.held_tokens + n.held_tokens
    FROM unnest(%s::bigint[], %s::date[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS n (account_id, day, requests, tokens, held_tokens)
    WHERE d.account_id = n.account_id AND d.day = n.day
"""


@dataclass(slots=True)
class _Hold:
    account_id: int
    key_id: int
    amount_nanousd: int
    allowance_day: dt.date | None
    allowance_tokens: int
    budget_period_start: dt.date | None


@dataclass(slots=True)
class _Allowance:
    requests: int = 0
    tokens: int = 0
    held_tokens: int = 0


@dataclass(slots=True)
class Books:
    """The state of a batch between its locks and its commit. Amounts are nano-USD."""

    connection: Connection
    _wallets: dict[int, WalletState]
    _budgets: dict[int, BudgetState]
    _versions: dict[int, tuple[int, int]]
    _allowances: dict[tuple[int, dt.date], _Allowance]
    _holds: dict[uuid.UUID, _Hold]
    _allowance_changes: dict[tuple[int, dt.date], Counter[str]] = field(default_factory=dict)
    _begun_allowances: list[tuple[int, dt.date]] = field(default_factory=list)
    _budget_corrections: list[BudgetCorrection] = field(default_factory=list)
    _new_holds: list[dict[str, Any]] = field(default_factory=list)
    _ended: list[FinishedRequest] = field(default_factory=list)

    def admit(self, request: Admission) -> Decision:
        """Decide one request, and set aside what it may cost."""
        if self._versions.get(request.finished.key_id) != (request.key_version, request.account_version):
            return PolicyChanged()
        if not request.draws_allowance:
            return self._admit_on_credits(request)
        fits = self._allowance_fits(request)
        wanted = request.output_limit or min(request.max_output_tokens, _USEFUL_OUTPUT_TOKENS)
        if fits is not None and fits >= wanted:
            return self._admit_on_allowance(request, fits)
        on_credits = self._admit_on_credits(request) if request.spends_credits else None
        if isinstance(on_credits, Admitted):
            return on_credits
        if fits is not None and fits >= min(request.max_output_tokens, 1):
            return self._admit_on_allowance(request, fits)
        return on_credits if isinstance(on_credits, BudgetReached) else self._allowance_exhausted(request)

    def end(self, finished: FinishedRequest) -> bool:
        """Settle a request that had been admitted, and record it. False: it had been resolved before.

        Nothing produced costs nothing. What goes beyond the hold is taken from what is available; what is not
        there is the platform's loss.
        """
        hold = self._holds.pop(finished.id, None)
        if hold is None:
            return False
        produced = finished.has_produced
        cost = finished.expected_cost_nanousd()
        finished.cost_nanousd = cost
        wallet = self._wallets[hold.account_id]
        if hold.allowance_day is None:
            wallet.release(hold.amount_nanousd)
            finished.charged_nanousd = wallet.charge(cost)
            finished.loss_nanousd = cost - finished.charged_nanousd
        else:
            used = finished.input_tokens + finished.output_tokens if produced else 0
            finished.allowance_tokens = used
            self._change_allowance(
                hold.account_id,
                hold.allowance_day,
                requests=0 if produced else -1,
                tokens=used,
                held_tokens=-hold.allowance_tokens,
            )
        if hold.budget_period_start is not None:
            self._budget_corrections.append(
                BudgetCorrection(
                    key_id=hold.key_id,
                    period_start=hold.budget_period_start,
                    held_nanousd=hold.amount_nanousd,
                    spent_nanousd=finished.charged_nanousd,
                )
            )
        self._ended.append(finished)
        return True

    def record(self, finished: FinishedRequest) -> None:
        """Record a request that was refused: it never held anything."""
        self._ended.append(finished)

    def write(self) -> None:
        """Write everything that was decided; the caller commits."""
        wallets.write(self.connection, self._wallets.values())
        budgets.write(self.connection, self._budgets.values())
        budgets.resolve(self.connection, self._budget_corrections)
        self._write_allowances()
        if self._new_holds:
            self.connection.execute(_PLACE_HOLDS, (orjson.dumps(self._new_holds).decode(),))
        recording.insert(self.connection, self._ended)

    def _write_allowances(self) -> None:
        if self._begun_allowances:
            begun = list(zip(*self._begun_allowances, strict=True))
            self.connection.execute(_BEGIN_ALLOWANCES, (list(begun[0]), list(begun[1])))
        if self._allowance_changes:
            changes = self._allowance_changes
            self.connection.execute(
                _CHANGE_ALLOWANCES,
                (
                    [account_id for account_id, _day in changes],
                    [day for _account_id, day in changes],
                    [change["requests"] for change in changes.values()],
                    [change["tokens"] for change in changes.values()],
                    [change["held_tokens"] for change in changes.values()],
                ),
            )

    def _admit_on_credits(self, request: Admission) -> Admitted | CreditsInsufficient | BudgetReached:
        wallet = self._wallets[request.finished.account_id]
        budget = self._budgets.get(request.finished.key_id)
        if budget is not None:
            budget.turn_to(request.at.date())
            if budget.remaining_nanousd < wallet.available_nanousd:
                affordable = _affordable(request, budget.remaining_nanousd)
                if not _is_enough(request, affordable):
                    return _budget_reached(request, budget, affordable)
        affordable = _affordable(request, wallet.available_nanousd)
        if not _is_enough(request, affordable):
            return _credits_insufficient(request, wallet, affordable)
        if budget is not None:
            affordable = min(affordable, _affordable(request, budget.remaining_nanousd))
        limit = min(request.output_limit or request.max_output_tokens, affordable)
        amount = request.price.worst_cost_nanousd(
            input_tokens=request.input_bytes, output_tokens=limit * request.choices
        )
        wallet.hold(amount)
        if budget is not None:
            budget.hold(amount)
        self._place_hold(request, amount=amount, budget=budget)
        return Admitted(output_limit=limit, held_nanousd=amount)

    def _admit_on_allowance(self, request: Admission, fits: int) -> Admitted:
        limit = min(request.output_limit or min(request.max_output_tokens, ALLOWANCE_OUTPUT_TOKENS), fits)
        day, tokens = request.at.date(), request.input_tokens + limit * request.choices
        account_day = (request.finished.account_id, day)
        if account_day not in self._allowances:
            self._allowances[account_day] = _Allowance()
            self._begun_allowances.append(account_day)
        allowance = self._allowances[account_day]
        allowance.requests += 1
        allowance.held_tokens += tokens
        self._change_allowance(request.finished.account_id, day, requests=1, tokens=0, held_tokens=tokens)
        self._place_hold(request, allowance_day=day, allowance_tokens=tokens)
        return Admitted(output_limit=limit, held_nanousd=0)

    def _allowance_fits(self, request: Admission) -> int | None:
        """The output tokens of one choice that the allowance can still pay for; None: not even the input."""
        allowance = self._allowances.get((request.finished.account_id, request.at.date()), _Allowance())
        if allowance.requests >= request.requests_per_day:
            return None
        left = request.tokens_per_day - allowance.tokens - allowance.held_tokens - request.input_tokens
        return None if left < 0 else left // request.choices

    def _allowance_exhausted(self, request: Admission) -> AllowanceExhausted:
        day = request.at.date()
        allowance = self._allowances.get((request.finished.account_id, day), _Allowance())
        return AllowanceExhausted(
            requests=allowance.requests,
            requests_limit=request.requests_per_day,
            tokens=allowance.tokens,
            held_tokens=allowance.held_tokens,
            tokens_limit=request.tokens_per_day,
            resets_at=dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), tzinfo=dt.UTC),
        )

    def _change_allowance(self, account_id: int, day: dt.date, **change: int) -> None:
        self._allowance_changes.setdefault((account_id, day), Counter()).update(change)

    def _place_hold(
        self,
        request: Admission,
        *,
        amount: int = 0,
        budget: BudgetState | None = None,
        allowance_day: dt.date | None = None,
        allowance_tokens: int = 0,
    ) -> None:
        self._new_holds.append(
            {
                "request_id": request.finished.id,
                "account_id": request.finished.account_id,
                "key_id": request.finished.key_id,
                "process_id": request.process_id,
                "amount_nanousd": amount,
                "allowance_day": allowance_day,
                "allowance_tokens": allowance_tokens,
                "budget_period_start": budget.period_start if budget else None,
                "request": orjson.Fragment(request.finished.as_json()),
                "placed_at": request.at,
            }
        )


def open_books(
    connection: Connection, *, admissions: Sequence[Admission], ended: Sequence[FinishedRequest]
) -> Books:
    """Lock the accounts of a batch and read what its decisions rest on, in one round trip of a pipeline."""
    account_ids = sorted({a.finished.account_id for a in admissions} | {e.account_id for e in ended})
    key_ids = list({a.finished.key_id for a in admissions})
    locked = wallets.query(connection, account_ids)
    versions = connection.execute(_VERSIONS, (key_ids,)) if key_ids else None
    days = list({a.at.date() for a in admissions if a.draws_allowance})
    allowances = connection.execute(_ALLOWANCES, (account_ids, days)) if days else None
    budget_rows = budgets.query(connection, key_ids) if key_ids else None
    taken = connection.execute(_TAKE_HOLDS, ([e.id for e in ended],)) if ended else None

    books = Books(
        connection=connection,
        _wallets=wallets.states(locked),
        _budgets=budgets.states(budget_rows) if budget_rows else {},
        _versions={row[0]: (row[1], row[2]) for row in versions} if versions else {},
        _allowances={(row[0], row[1]): _Allowance(*row[2:]) for row in allowances} if allowances else {},
        _holds={row[0]: _Hold(*row[1:]) for row in taken} if taken else {},
    )
    if len(books._wallets) < len(account_ids):  # noqa: SLF001 - its own maker
        # The first request of an account. What was read of it was read without a lock, so read it all again.
        wallets.create_missing(connection, account_ids)
        again = open_books(connection, admissions=admissions, ended=())
        again._wallets = books._wallets | again._wallets  # noqa: SLF001
        again._holds = books._holds  # noqa: SLF001
        return again
    return books


def _affordable(request: Admission, amount_nanousd: int) -> int:
    """The output tokens of one choice that the amount pays for; as many as the model can write if output is free."""
    tokens = request.price.affordable_output_tokens(
        available_nanousd=amount_nanousd, input_tokens=request.input_bytes
    )
    return request.max_output_tokens if tokens is None else tokens // request.choices


def _is_enough(request: Admission, affordable: int) -> bool:
    return affordable >= (request.output_limit or min(request.max_output_tokens, 1))


def _credits_insufficient(request: Admission, wallet: WalletState, affordable: int) -> CreditsInsufficient:
    return CreditsInsufficient(
        available_nanousd=wallet.available_nanousd,
        held_nanousd=wallet.held_nanousd,
        needed_nanousd=request.price.worst_cost_nanousd(
            input_tokens=request.input_bytes,
            output_tokens=(request.output_limit or min(request.max_output_tokens, 1)) * request.choices,
        ),
        affordable_tokens=affordable,
    )


def _budget_reached(request: Admission, budget: BudgetState, affordable: int) -> BudgetReached:
    return BudgetReached(
        limit_nanousd=budget.limit_nanousd,
        spent_nanousd=budget.spent_nanousd,
        held_nanousd=budget.held_nanousd,
        period=budget.period,
        affordable_tokens=affordable,
        resets_at=budgets.period_end(period=budget.period, day=request.at.date()),
    )
