"""Promotional credit: what was granted, what is left of it, and what expires."""

from typing import TYPE_CHECKING

from django.contrib import admin

from billing import promotions
from billing.admin.filters import by_presence
from billing.admin.read_only import ReadOnly, usd
from billing.models import PromotionalCredit

if TYPE_CHECKING:
    PromotionalCreditModelAdmin = admin.ModelAdmin[PromotionalCredit]
else:  # Django's classes take no type arguments at run time.
    PromotionalCreditModelAdmin = admin.ModelAdmin


@admin.register(PromotionalCredit)
class PromotionalCreditAdmin(ReadOnly, PromotionalCreditModelAdmin):
    list_display = ("id", "account", "amount", "remaining", "expires_at", "reason")
    fields = (
        "account",
        "amount",
        "left_now",
        "remaining",
        "expired",
        "expires_at",
        "reason",
        "granted_by",
        "granted_at",
        "noticed_at",
        "closed_at",
        "transaction",
    )
    list_filter = (
        ("closed_at", by_presence(title="what is left", absent="Something may be left", present="Nothing")),
        ("expires_at", by_presence(title="expiry", absent="Never", present="On a day")),
    )
    search_fields = ("account__name", "account__members__email", "reason")
    list_select_related = ("account",)
    date_hierarchy = "granted_at"

    @admin.display(ordering="amount_nanousd")
    def amount(self, credit: PromotionalCredit) -> str:
        return usd(credit.amount_nanousd)

    @admin.display(ordering="remaining_nanousd", description="Left at the last look")
    def remaining(self, credit: PromotionalCredit) -> str:
        return usd(credit.remaining_nanousd)

    @admin.display(ordering="expired_nanousd")
    def expired(self, credit: PromotionalCredit) -> str:
        return usd(credit.expired_nanousd)

    def left_now(self, credit: PromotionalCredit) -> str:
        standing = promotions.standing(account_id=credit.account_id)
        return usd(sum(lot.left_nanousd for lot in standing.lots if lot.id == credit.pk))
