"""The locked accounts of one batch of requests: who may go ahead, and what the ended ones cost.

This is where nobody overspends. A batch is one transaction of two calls: the first locks the wallets and reads what the
decisions rest on; `admit` and `end` decide in memory, without a word to anyone; the second writes it all back. Holds
are placed and taken away under the lock of their wallet only, so a request is resolved once. A batch whose books can be
foreseen is decided first and read, compared and written in one call: see `usage.foreseeing`.

How the calls reach PostgreSQL is not said here: the teller sends them without waiting (`gateway.teller`), everyone
else with `usage.opening` and `write` on a connection that is inside a transaction.
"""

import datetime as dt
import uuid
from dataclasses import dataclass, field, replace
from typing import Any, Self

import orjson

from billing.wallets import Connection, WalletState
from usage import recording
from usage.admission import (
    Admission,
    Admitted,
    AllowanceExhausted,
    BudgetReached,
    CreditsInsufficient,
    Decision,
    Idempotency,
    PolicyChanged,
    Repeated,
)
from usage.batch_allowances import AllowancesOfBatch, Drawn
from usage.batch_budgets import BudgetsOfBatch
from usage.batches import WRITE, Call, array, as_json, execute
from usage.minutes import MinuteExhausted, MinuteState
from usage.models import UsageRecord
from usage.recording import FinishedRequest

# What an allowance reserves of a request that names no limit: enough for a long answer, and little enough
# that a free account can have several requests running.
ALLOWANCE_OUTPUT_TOKENS = 16_384
# An allowance that has less than this left serves a request only if no credits can.
_USEFUL_OUTPUT_TOKENS = 256
# A request that was not served frees its idempotency key: it may be sent again. One that was refused has none, unless
# it held something: see `end`.
_UNSERVED = frozenset({UsageRecord.Outcome.FAILED, UsageRecord.Outcome.INTERRUPTED})


@dataclass(slots=True)
class _Hold:
    account_id: int
    key_id: int
    amount_nanousd: int
    allowance_day: dt.date | None
    allowance_tokens: int

    @classmethod
    def of(cls, row: list[Any]) -> Self:
        _request_id, account_id, key_id, amount, day, tokens = row
        return cls(account_id, key_id, amount, _date(day) if day else None, tokens)


@dataclass(frozen=True, slots=True)
class Left:
    """The rows that a batch has left: as an answer of `usage_open_books` would have them, but for what was not read."""

    wallets: list[list[Any]]
    budgets: list[list[Any]]
    environments: dict[int, str]
    allowances: list[list[Any]]
    # What was added to others.
    unread_allowances: list[list[Any]]
    # Those that were placed.
    holds: list[list[Any]]
    # Keys of which Redis has missed a request.
    missed: set[int]


@dataclass(frozen=True, slots=True)
class _Claim:
    body_digest: str
    request_id: str


@dataclass(slots=True)
class Books:
    """The state of a batch between its locks and its commit. Amounts are nano-USD."""

    _wallets: dict[int, WalletState]
    _versions: dict[int, tuple[int, int]]
    _budgets: BudgetsOfBatch
    _allowances: AllowancesOfBatch
    _holds: dict[str, _Hold]
    _claims: dict[tuple[int, str], _Claim]
    _minutes: dict[int, MinuteState]
    _new_holds: list[dict[str, Any]] = field(default_factory=list)
    _new_claims: list[dict[str, Any]] = field(default_factory=list)
    _freed_claims: list[str] = field(default_factory=list)
    # Keys of which Redis has missed a request, as was read, and of this batch.
    _missed: set[int] = field(default_factory=set)
    _newly_missed: set[int] = field(default_factory=set)
    _resolved: dict[str, _Hold] = field(default_factory=dict)
    _ended: list[FinishedRequest] = field(default_factory=list)

    @classmethod
    def of(cls, answer: str | bytes) -> Self:
        """The books that the answer of `usage_open_books` opens."""
        return cls.foreseen(orjson.loads(answer))

    @classmethod
    def foreseen(cls, answer: list[Any]) -> Self:
        """The books that such an answer would open."""
        wallets, versions, budgets, environments, allowances, holds, claims, minutes = answer
        return cls(
            _wallets={row[0]: WalletState(*row) for row in wallets or ()},
            _versions={row[0]: (row[1], row[2]) for row in versions or ()},
            _missed={row[0] for row in versions or () if row[3]},
            _budgets=BudgetsOfBatch.of(budgets or (), environments or ()),
            _allowances=AllowancesOfBatch.of(allowances or ()),
            _holds={row[0]: _Hold.of(row) for row in holds or ()},
            _claims={(row[0], row[1]): _Claim(row[2], row[3]) for row in claims or ()},
            _minutes={row[0]: MinuteState(*row[1:]) for row in minutes or ()},
        )

    def admit(self, request: Admission) -> Decision:
        """Decide one request, and set aside what it may cost."""
        if request.replaces:
            self._take_back(request)
        if self._versions.get(request.finished.key_id) != (request.key_version, request.account_version):
            return PolicyChanged()
        # It was counted for every key of which Redis, for one request of this batch or for all, cannot know it.
        state = self._minutes.get(request.finished.key_id)
        if request.minute is None or state is None:
            return self._admit_once(request)
        if what := state.refuses(request.minute):
            return MinuteExhausted(what, replace(state))
        decision = self._admit_once(request)
        if isinstance(decision, Admitted):
            state.add(request.minute)
            if not request.minute.is_decided:
                self._newly_missed.add(request.finished.key_id)
            return replace(decision, minute=replace(state))
        return decision

    def _admit_once(self, request: Admission) -> Decision:
        """Whether it may be paid for, unless its idempotency key is taken."""
        if request.idempotency is None:
            return self._judge(request)
        claimed = self._claims.get((request.finished.key_id, request.idempotency.digest))
        if claimed is not None and claimed.request_id != request.finished.id_text:
            is_same_body = claimed.body_digest == request.idempotency.body_digest
            return Repeated(request_id=uuid.UUID(claimed.request_id), is_same_body=is_same_body)
        decision = self._judge(request)
        if claimed is None and isinstance(decision, Admitted):
            self._claim(request, request.idempotency)
        return decision

    def _judge(self, request: Admission) -> Decision:
        """Whether the allowance or the credits pay for it."""
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
        if isinstance(on_credits, BudgetReached):
            return on_credits
        # Credit that pays for a smaller request is a way to go on; what pays for nothing of it is none.
        return (
            on_credits
            if on_credits and on_credits.affordable_tokens > 0
            else self._allowance_exhausted(request)
        )

    def end(self, finished: FinishedRequest) -> bool:
        """Settle a request that had been admitted, and record it. False: it had been resolved before.

        Nothing produced costs nothing. What goes beyond the hold is taken from what is available; what is not
        there is the platform's loss.
        """
        # A batch may be decided twice: see `usage.foreseeing`.
        finished.charged_nanousd = finished.loss_nanousd = finished.allowance_tokens = 0
        hold = self._resolve(finished)
        if hold is None:
            return False
        produced = finished.has_produced
        cost = finished.expected_cost_nanousd()
        finished.cost_nanousd = cost
        wallet = self._wallets[hold.account_id]
        if hold.allowance_day is None:
            finished.charged_nanousd = wallet.settle(hold.amount_nanousd, cost)
            finished.loss_nanousd = cost - finished.charged_nanousd
            self._budgets.resolve(
                finished, held_nanousd=hold.amount_nanousd, spent_nanousd=finished.charged_nanousd
            )
        else:
            used = finished.input_tokens + finished.output_tokens if produced else 0
            finished.allowance_tokens = used
            change = Drawn(0 if produced else -1, used, -hold.allowance_tokens)
            self._allowances.change(hold.account_id, hold.allowance_day, change)
        if finished.outcome == UsageRecord.Outcome.REFUSED:
            # It was admitted, and whoever asked did not hear of it in time.
            self._freed_claims.append(finished.id_text)
        if finished.is_missed:
            self._newly_missed.add(finished.key_id)
        self.record(finished)
        return True

    def record(self, finished: FinishedRequest) -> None:
        """Record a request that holds nothing: it was refused, or `end` has just settled it."""
        if finished.outcome in _UNSERVED:
            self._freed_claims.append(finished.id_text)
        self._ended.append(finished)

    def changes(self) -> list[bytes | None]:
        """Everything that was decided, as `usage_write_books` takes it."""
        resolved = self._resolved.values()
        changed = [wallet for wallet in self._wallets.values() if wallet.is_changed]
        tables = (
            self._budgets.changes(),
            self._allowances.begun(),
            self._allowances.changes(),
            self._new_holds,
            self._new_claims,
        )
        return [
            array(self._resolved),
            array([[hold.amount_nanousd, hold.allowance_tokens] for hold in resolved]),
            array([hold.allowance_day for hold in resolved]),
            array([wallet.account_id for wallet in changed]),
            array([[wallet.balance_nanousd, wallet.held_nanousd] for wallet in changed]),
            *map(as_json, tables),
            array(self._freed_claims),
            recording.rows(self._ended) if self._ended else None,
            array(self._newly_missed),
        ]

    def left(self) -> Left:
        """What the batch leaves once it is committed."""
        return Left(
            wallets=[[w.account_id, w.balance_nanousd, w.held_nanousd] for w in self._wallets.values()],
            budgets=self._budgets.rows(),
            environments=self._budgets.environments,
            allowances=self._allowances.rows(),
            unread_allowances=self._allowances.unread(),
            holds=[_as_row(hold) for hold in self._new_holds],
            missed=self._missed | self._newly_missed,
        )

    def write(self, connection: Connection) -> None:
        """Write down everything that was decided, in the caller's transaction."""
        execute(connection, Call(WRITE, self.changes()))

    def _resolve(self, finished: FinishedRequest) -> _Hold | None:
        """What the request holds, which it holds no longer; None: nothing."""
        hold = self._holds.pop(finished.id_text, None)
        if hold is not None:
            self._resolved[finished.id_text] = hold
        return hold

    def _take_back(self, request: Admission) -> None:
        """Let go of what the request holds already."""
        hold = self._resolve(request.finished)
        if hold is None:
            return
        if hold.allowance_day is None:
            self._wallets[hold.account_id].release(hold.amount_nanousd)
            self._budgets.resolve(request.finished, held_nanousd=hold.amount_nanousd)
        else:
            taken_back = Drawn(requests=-1, held_tokens=-hold.allowance_tokens)
            self._allowances.change(hold.account_id, hold.allowance_day, taken_back)

    def _admit_on_credits(self, request: Admission) -> Admitted | CreditsInsufficient | BudgetReached:
        wallet = self._wallets[request.finished.account_id]
        tightest = self._budgets.tightest(request.finished)
        available = wallet.available_nanousd
        if tightest is not None:
            available = min(available, tightest.remaining_nanousd)
        affordable = request.affordable_output_tokens(available)
        if affordable < request.least_output_tokens:
            if tightest is not None and available < wallet.available_nanousd:
                return tightest.reached(affordable)
            return _credits_insufficient(request, wallet, affordable)
        limit = min(request.output_limit or request.max_output_tokens, affordable)
        amount = request.worst_cost_nanousd(limit)
        wallet.hold(amount)
        self._budgets.hold(request.finished, amount)
        self._place_hold(request, amount=amount)
        return Admitted(output_limit=limit, held_nanousd=amount)

    def _admit_on_allowance(self, request: Admission, fits: int) -> Admitted:
        limit = min(request.output_limit or min(request.max_output_tokens, ALLOWANCE_OUTPUT_TOKENS), fits)
        day, tokens = request.at.date(), request.input_tokens + limit * request.choices
        self._allowances.draw(request.finished.account_id, day, tokens=tokens)
        self._place_hold(request, allowance_day=day, allowance_tokens=tokens)
        return Admitted(output_limit=limit, held_nanousd=0)

    def _claim(self, request: Admission, idempotency: Idempotency) -> None:
        request_id = request.finished.id_text
        self._claims[request.finished.key_id, idempotency.digest] = _Claim(
            idempotency.body_digest, request_id
        )
        self._new_claims.append(
            {
                "key_id": request.finished.key_id,
                "digest": idempotency.digest,
                "body_digest": idempotency.body_digest,
                "request_id": request_id,
                "claimed_at": request.at,
            }
        )

    def _allowance_fits(self, request: Admission) -> int | None:
        """The output tokens of one choice that the allowance can still pay for; None: not even the input."""
        drawn = self._allowances.drawn(request.finished.account_id, request.at.date())
        if drawn.requests >= request.requests_per_day:
            return None
        left = request.tokens_per_day - drawn.tokens - drawn.held_tokens - request.input_tokens
        return None if left < 0 else left // request.choices

    def _allowance_exhausted(self, request: Admission) -> AllowanceExhausted:
        day = request.at.date()
        drawn = self._allowances.drawn(request.finished.account_id, day)
        return AllowanceExhausted(
            requests=drawn.requests,
            requests_limit=request.requests_per_day,
            tokens=drawn.tokens,
            held_tokens=drawn.held_tokens,
            input_tokens=request.input_tokens,
            tokens_limit=request.tokens_per_day,
            resets_at=dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), tzinfo=dt.UTC),
        )

    def _place_hold(
        self,
        request: Admission,
        *,
        amount: int = 0,
        allowance_day: dt.date | None = None,
        allowance_tokens: int = 0,
    ) -> None:
        self._new_holds.append(
            {
                "request_id": request.finished.id_text,
                "account_id": request.finished.account_id,
                "key_id": request.finished.key_id,
                "process_id": request.process_id,
                "amount_nanousd": amount,
                "allowance_day": allowance_day,
                "allowance_tokens": allowance_tokens,
                "request": request.finished.as_admitted(),
                "placed_at": request.at,
                "minute_tokens": request.minute_tokens,
            }
        )


def _as_row(hold: dict[str, Any]) -> list[Any]:
    """A placed hold as the answer would have it."""
    day: dt.date | None = hold["allowance_day"]
    return [
        hold["request_id"],
        hold["account_id"],
        hold["key_id"],
        hold["amount_nanousd"],
        day.isoformat() if day else None,
        hold["allowance_tokens"],
    ]


def _date(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


def _credits_insufficient(request: Admission, wallet: WalletState, affordable: int) -> CreditsInsufficient:
    return CreditsInsufficient(
        available_nanousd=wallet.available_nanousd,
        held_nanousd=wallet.balance_nanousd - wallet.available_nanousd,
        needed_nanousd=request.worst_cost_nanousd(request.least_output_tokens),
        affordable_tokens=affordable,
    )
