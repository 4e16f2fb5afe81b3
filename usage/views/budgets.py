"""A key's own spend limit."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from accounts.acting import AccountRequest, acting_account_required
from billing import budgets
from billing.forms import BudgetForm
from billing.models import Budget
from catalog.money import usd_from_nano
from keys.models import ApiKey
from usage import budgeting


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def key_budget(request: AccountRequest, key_id: int) -> HttpResponse:
    """Set a key's own spend limit."""
    key = get_object_or_404(ApiKey, pk=key_id, account=request.account)
    budget = Budget.objects.filter(key=key).first()
    if request.method == "POST":
        form = BudgetForm(request.POST)
        if form.is_valid():
            budgeting.set_budget(
                scope=budgets.Scope.of_key(key),
                period=form.cleaned_data["period"],
                limit_nanousd=form.cleaned_data["limit"],
                actor=request.user,
                at=timezone.now(),
            )
            messages.success(request, f"The spend limit of {key.name} holds from now on.")
            return redirect("key_budget", key.pk)
    elif budget:
        limit_usd = usd_from_nano(budget.limit_nanousd)
        form = BudgetForm(initial={"limit": f"{limit_usd:.2f}", "period": budget.period})
    else:
        form = BudgetForm(initial={"period": Budget.Period.MONTH})
    context = {
        "key": key,
        "budget": budget,
        "counted": budget and budgets.BudgetState.as_it_stands(budget, day=timezone.now().date()).running,
        "resets_at": budget and budgets.period_end(period=budget.period, day=timezone.now().date()),
        "form": form,
    }
    return render(request, "billing/key_budget.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def clear_key_budget(request: AccountRequest, key_id: int) -> HttpResponse:
    """Take a key's spend limit away, after asking once."""
    key = get_object_or_404(ApiKey, pk=key_id, account=request.account)
    budget = Budget.objects.filter(key=key).first()
    if request.method == "POST":
        if budget:
            budgeting.remove_budget(budget=budget, actor=request.user)
        messages.success(request, f"{key.name} has no spend limit of its own any more.")
        return redirect("key_budget", key.pk)
    if budget is None:
        return redirect("key_budget", key.pk)
    return render(request, "billing/key_budget_clear.html", {"key": key, "budget": budget})
