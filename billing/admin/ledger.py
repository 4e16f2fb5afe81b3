"""The ledger, to read."""

from typing import TYPE_CHECKING, ClassVar

from django.contrib import admin
from django.db.models import QuerySet, Sum
from django.http import HttpRequest
from django.urls import URLPattern, path

from billing.admin import money
from billing.admin.read_only import ReadOnly, usd
from billing.models import LedgerAccount, LedgerTransaction, Posting

if TYPE_CHECKING:
    LedgerTransactionModelAdmin = admin.ModelAdmin[LedgerTransaction]
    LedgerAccountModelAdmin = admin.ModelAdmin[LedgerAccount]
    PostingTabularInline = admin.TabularInline[Posting, LedgerTransaction]
else:  # Django's classes take no type arguments at run time.
    LedgerTransactionModelAdmin = LedgerAccountModelAdmin = admin.ModelAdmin
    PostingTabularInline = admin.TabularInline


class PostingInline(ReadOnly, PostingTabularInline):
    model = Posting
    fields = ("ledger_account", "amount")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Posting]:
        return super().get_queryset(request).select_related("ledger_account")

    def amount(self, posting: Posting) -> str:
        return usd(posting.amount_nanousd)


@admin.register(LedgerTransaction)
class LedgerTransactionAdmin(ReadOnly, LedgerTransactionModelAdmin):
    list_display = ("number", "kind", "account", "description", "created_at")
    list_filter = ("kind",)
    search_fields = ("reference", "=number", "account__name", "account__members__email")
    list_select_related = ("account",)
    date_hierarchy = "created_at"
    fields = (
        "number",
        "reference",
        "kind",
        "account",
        "description",
        "created_at",
        "previous_hash",
        "hash",
    )
    readonly_fields = ("number", "previous_hash", "hash")
    inlines = (PostingInline,)

    def get_urls(self) -> list[URLPattern]:
        """With the pages that show what the ledger amounts to."""
        page = self.admin_site.admin_view
        return [
            path("accounts/<int:account_id>/", page(money.account_money), name="billing_account_money"),
            path("revenue/", page(money.revenue_by_month), name="billing_revenue"),
            path("revenue.csv", page(money.revenue_file), name="billing_revenue_file"),
            path("losses/", page(money.losses), name="billing_losses"),
            *super().get_urls(),
        ]


@admin.register(LedgerAccount)
class LedgerAccountAdmin(ReadOnly, LedgerAccountModelAdmin):
    list_display = ("kind", "account", "provider", "balance")
    fields = ("kind", "account", "provider", "balance")
    list_filter = ("kind",)
    search_fields = ("account__name", "account__members__email")
    list_select_related = ("account",)
    ordering: ClassVar = ["kind", "id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[LedgerAccount]:
        return super().get_queryset(request).annotate(balance_nanousd=Sum("postings__amount_nanousd"))

    @admin.display(ordering="balance_nanousd", description="Balance (positive: we owe it or earned it)")
    def balance(self, ledger_account: LedgerAccount) -> str:
        balance_nanousd: int | None = getattr(ledger_account, "balance_nanousd", None)
        return usd(balance_nanousd or 0)
