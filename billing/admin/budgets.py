"""Budgets, to look at: they are their account's own to change."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.utils import timezone

from billing.admin.read_only import ReadOnly, usd
from billing.budgets import BudgetState, Counted, day_of
from billing.models import Budget

if TYPE_CHECKING:
    BudgetModelAdmin = admin.ModelAdmin[Budget]
else:  # Django's classes take no type arguments at run time.
    BudgetModelAdmin = admin.ModelAdmin


@admin.register(Budget)
class BudgetAdmin(ReadOnly, BudgetModelAdmin):
    """As they stand now."""

    list_display = ("account", "of", "period", "limit", "spent", "refuses")
    fields = ("account", "of", "period", "limit", "spent", "held", "refuses", "alert_percents")
    list_filter = ("period", "is_hard_stop", "environment")
    search_fields = ("account__name", "account__members__email", "key__name")
    list_select_related = ("account", "key")

    @admin.display(description="Limits")
    def of(self, budget: Budget) -> str:
        return budget.scope_label

    @admin.display(ordering="is_hard_stop", boolean=True, description="Refuses at the limit")
    def refuses(self, budget: Budget) -> bool:
        return budget.is_hard_stop

    @admin.display(ordering="limit_nanousd")
    def limit(self, budget: Budget) -> str:
        return usd(budget.limit_nanousd)

    def spent(self, budget: Budget) -> str:
        return usd(_running(budget).spent_nanousd)

    def held(self, budget: Budget) -> str:
        return usd(_running(budget).held_nanousd)


def _running(budget: Budget) -> Counted:
    return BudgetState.as_it_stands(budget, day=day_of(timezone.now())).running
