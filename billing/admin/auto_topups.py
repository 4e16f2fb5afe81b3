"""What accounts have agreed to have bought without them."""

from typing import TYPE_CHECKING

from django.contrib import admin

from billing.admin.read_only import ReadOnly, usd
from billing.models import AutoTopUp

if TYPE_CHECKING:
    AutoTopUpModelAdmin = admin.ModelAdmin[AutoTopUp]
else:  # Django's classes take no type arguments at run time.
    AutoTopUpModelAdmin = admin.ModelAdmin


@admin.register(AutoTopUp)
class AutoTopUpAdmin(ReadOnly, AutoTopUpModelAdmin):
    list_display = ("account", "is_on", "threshold", "amount", "monthly_cap", "off_reason")
    fields = (
        *list_display,
        "off_at",
        "failures",
        "agreed_total",
        "agreed_by",
        "agreed_at",
        "not_before",
        "asked_at",
    )
    list_filter = ("is_on",)
    search_fields = ("account__name", "account__members__email")
    list_select_related = ("account",)

    @admin.display(ordering="threshold_nanousd")
    def threshold(self, auto: AutoTopUp) -> str:
        return usd(auto.threshold_nanousd)

    @admin.display(ordering="amount_nanousd")
    def amount(self, auto: AutoTopUp) -> str:
        return usd(auto.amount_nanousd)

    @admin.display(ordering="monthly_cap_nanousd")
    def monthly_cap(self, auto: AutoTopUp) -> str:
        return usd(auto.monthly_cap_nanousd)

    def agreed_total(self, auto: AutoTopUp) -> str:
        return usd(auto.agreed_total_nanousd)
