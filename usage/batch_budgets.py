"""The budgets of a batch of requests: which of them a request counts in, and which leaves it the least."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from billing.budgets import BudgetState, day_of, period_end
from usage.admission import BudgetReached
from usage.recording import FinishedRequest


@dataclass(frozen=True, slots=True)
class Tightest:
    """The budget that leaves a request of that UTC day the least."""

    budget: BudgetState
    day: dt.date
    remaining_nanousd: int

    def reached(self, affordable_tokens: int) -> BudgetReached:
        """What a request is told that would have to have more than so many tokens."""
        counted = self.budget.counted(self.day)
        return BudgetReached(
            scope=self.budget.scope,
            limit_nanousd=self.budget.limit_nanousd,
            spent_nanousd=counted.spent_nanousd,
            held_nanousd=counted.held_nanousd,
            period=self.budget.period,
            affordable_tokens=affordable_tokens,
            resets_at=period_end(period=self.budget.period, day=self.day),
        )


class BudgetsOfBatch:
    """Locked budgets, changed in memory and written back once. An account without any costs one look-up."""

    def __init__(self, budgets: Iterable[BudgetState], environments: dict[int, str]) -> None:
        self.environments = environments
        self._of_account: dict[int, list[BudgetState]] = {}
        for budget in budgets:
            self._of_account.setdefault(budget.scope.account_id, []).append(budget)

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any]], environments: Iterable[tuple[int, str]]) -> Self:
        """As `usage_open_books` gives them; the environments of the keys only where a budget is of one."""
        return cls(map(BudgetState.of, rows), dict(environments))

    def tightest(self, request: FinishedRequest) -> Tightest | None:
        """The hard stop that leaves the request the least; None: nothing stops it."""
        limiting = self._limiting(request)
        if not limiting:
            return None
        day = day_of(request.started_at)
        for budget in limiting:
            budget.turn_to(day)
        stops = [Tightest(b, day, b.remaining_nanousd(day)) for b in limiting if b.is_hard_stop]
        return min(stops, key=lambda stop: stop.remaining_nanousd, default=None)

    def hold(self, request: FinishedRequest, amount_nanousd: int) -> None:
        """Count what an admitted request may cost."""
        for budget in self._limiting(request):
            budget.change(day_of(request.started_at), held_nanousd=amount_nanousd)

    def resolve(self, request: FinishedRequest, *, held_nanousd: int, spent_nanousd: int = 0) -> None:
        """Count what the request was charged instead of what it held."""
        for budget in self._limiting(request):
            budget.change(day_of(request.started_at), held_nanousd=-held_nanousd, spent_nanousd=spent_nanousd)

    def changes(self) -> list[dict[str, Any]]:
        """Rows for `usage_write_books`."""
        return [
            {
                "id": budget.id,
                "period_start": budget.period_start,
                "spent": budget.running.spent_nanousd,
                "held": budget.running.held_nanousd,
                "previous_spent": budget.previous.spent_nanousd,
                "previous_held": budget.previous.held_nanousd,
            }
            for budgets in self._of_account.values()
            for budget in budgets
            if budget.is_changed
        ]

    def rows(self) -> list[list[Any]]:
        """All of them, as `usage_open_books` would give them now."""
        return [budget.as_row() for budgets in self._of_account.values() for budget in budgets]

    def _limiting(self, request: FinishedRequest) -> Sequence[BudgetState]:
        """The budgets that the request counts in."""
        budgets = self._of_account.get(request.account_id)
        if budgets is None:
            return ()
        return [
            budget
            for budget in budgets
            if budget.scope.key_id in (None, request.key_id)
            and budget.scope.environment in ("", self.environments.get(request.key_id))
        ]
