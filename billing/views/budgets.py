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


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def key_budget(request: AccountRequest, key_id: int) -> HttpResponse:
    """Set a key's own spend limit."""
    key = get_object_or_404(ApiKey, pk=key_id, account=request.account)
    budget = Budget.objects.filter(key=key).first()
    if request.method == "POST":
        form = BudgetForm(request.POST)
        if form.is_valid():
            budgets.set_key_budget(
                key=key,
                period=form.cleaned_data["period"],
                limit_nanousd=form.cleaned_data["limit"],
                actor=request.user,
                at=timezone.now(),
            )
            messages.success(request, f"The spend limit of {key.name} holds from now on.")
            return redirect("billing:key_budget", key.pk)
    elif budget:
        limit_usd = usd_from_nano(budget.limit_nanousd)
        form = BudgetForm(initial={"limit": f"{limit_usd:.2f}", "period": budget.period})
    else:
        form = BudgetForm(initial={"period": Budget.Period.MONTH})
    context = {
        "key": key,
        "budget": _counted_now(budget),
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
        budgets.clear_key_budget(key=key, actor=request.user)
        messages.success(request, f"{key.name} has no spend limit of its own any more.")
        return redirect("billing:key_budget", key.pk)
    if budget is None:
        return redirect("billing:key_budget", key.pk)
    return render(request, "billing/key_budget_clear.html", {"key": key, "budget": budget})


def _counted_now(budget: Budget | None) -> Budget | None:
    """The budget as it stands at this moment: one whose period is over counts from zero again."""
    if budget is None:
        return None
    start = budgets.period_start(period=budget.period, day=timezone.now().date())
    if start > budget.period_start:
        budget.period_start, budget.spent_nanousd, budget.held_nanousd = start, 0, 0
    return budget
