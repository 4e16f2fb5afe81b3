"""Budgets: each as a bar, and the forms that add, change and remove them."""

import datetime as dt
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from accounts.acting import AccountRequest, acting_account_required
from billing.budgets import BudgetState, Scope, day_of, period_end
from billing.forms import BudgetForm, NewBudgetForm
from billing.models import Budget
from catalog.money import usd_from_nano
from usage import budgeting


@dataclass(frozen=True, slots=True)
class Line:
    """A budget as it stands: nano-USD, and how wide the parts of its bar are, of 100."""

    budget: Budget
    spent: int
    held: int
    left: int
    spent_share: float
    held_share: float
    resets_at: dt.datetime | None

    @property
    def percent(self) -> int:
        """Of the limit, spent and held, rounded down: 100 is reached. Beyond it where a budget only alerts."""
        whole = self.budget.limit_nanousd
        return (self.spent + self.held) * 100 // whole if whole else 100

    @property
    def is_full(self) -> bool:
        return self.left == 0

    @classmethod
    def of(cls, budget: Budget, *, day: dt.date) -> "Line":
        state = BudgetState.as_it_stands(budget, day=day)
        counted, limit = state.counted(day), budget.limit_nanousd
        spent_share = min(counted.spent_nanousd * 100 / limit, 100) if limit else 100
        return cls(
            budget=budget,
            spent=counted.spent_nanousd,
            held=counted.held_nanousd,
            left=state.remaining_nanousd(day),
            spent_share=spent_share,
            held_share=min(counted.held_nanousd * 100 / limit, 100 - spent_share) if limit else 0,
            resets_at=period_end(period=budget.period, day=day),
        )


@require_safe
@acting_account_required
def budget_list(request: AccountRequest) -> HttpResponse:
    """Every budget of the account: its own first, then its environments', then its keys'."""
    day = day_of(timezone.now())
    found = Budget.objects.filter(account=request.account).select_related("key")
    lines = [
        Line.of(budget, day=day) for budget in found.order_by("key__name", "key_id", "environment", "pk")
    ]
    lines.sort(key=lambda line: line.budget.key_id is not None)
    return render(request, "usage/budgets.html", {"lines": lines})


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def budget_add(request: AccountRequest) -> HttpResponse:
    """Add a budget; `?scope=key:5` has chosen already what it limits."""
    initial = {"scope": request.GET.get("scope", "account")}
    form = NewBudgetForm(request.POST or None, account=request.account, initial=initial)
    if form.is_valid():
        budget = budgeting.set_budget(
            scope=form.cleaned_data["scope"],
            period=form.cleaned_data["period"],
            actor=request.user,
            at=timezone.now(),
            **form.terms(),
        )
        messages.success(request, f"{budget.scope_label}: {budget.label} holds from now on.")
        return redirect("budget_list")
    return render(request, "usage/budget_form.html", {"form": form}, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def budget_change(request: AccountRequest, budget_id: int) -> HttpResponse:
    """Change a budget's limit, and what happens at it. What it limits, and by which period, is for another budget."""
    budget = get_object_or_404(Budget.objects.select_related("key"), pk=budget_id, account=request.account)
    initial = {
        "limit": f"{usd_from_nano(budget.limit_nanousd):.2f}",
        "stops": budget.is_hard_stop,
        "alerts": ", ".join(map(str, budget.alert_percents)),
    }
    form = BudgetForm(request.POST or None, initial=initial)
    if form.is_valid():
        budgeting.set_budget(
            scope=Scope.of(budget),
            period=budget.period,
            actor=request.user,
            at=timezone.now(),
            **form.terms(),
        )
        messages.success(request, "Saved: it holds from now on.")
        return redirect("budget_list")
    context = {"form": form, "budget": budget, "line": Line.of(budget, day=day_of(timezone.now()))}
    return render(request, "usage/budget_form.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def budget_remove(request: AccountRequest, budget_id: int) -> HttpResponse:
    """Remove a budget, after asking once."""
    budget = get_object_or_404(Budget.objects.select_related("key"), pk=budget_id, account=request.account)
    if request.method == "POST":
        budgeting.remove_budget(budget=budget, actor=request.user)
        messages.success(request, f"{budget.scope_label}: {budget.label} is gone.")
        return redirect("budget_list")
    return render(request, "usage/budget_remove.html", {"budget": budget})
