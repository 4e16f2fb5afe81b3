"""Money for the operator: everything to read, nothing to edit, and one thing to do, granting credit with a reason."""

import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.models import Account, User
from billing import crediting, ledger, upstream_health
from billing.forms import GrantForm
from billing.models import GatewayProcess, LedgerAccount, LedgerTransaction, Posting, TopUp, Wallet
from catalog.money import usd_string


def _usd(amount_nanousd: int) -> str:
    return f"{usd_string(amount_nanousd)} USD"


class _ReadOnly:
    """Money changes only through the functions that keep the books."""

    def has_add_permission(self, *_: Any) -> bool:
        return False

    def has_change_permission(self, *_: Any) -> bool:
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        return False


if TYPE_CHECKING:
    WalletModelAdmin = admin.ModelAdmin[Wallet]
    TopUpModelAdmin = admin.ModelAdmin[TopUp]
    LedgerTransactionModelAdmin = admin.ModelAdmin[LedgerTransaction]
    LedgerAccountModelAdmin = admin.ModelAdmin[LedgerAccount]
    PostingTabularInline = admin.TabularInline[Posting, LedgerTransaction]
    GatewayProcessModelAdmin = admin.ModelAdmin[GatewayProcess]
else:  # Django's classes take no type arguments at run time.
    WalletModelAdmin = TopUpModelAdmin = LedgerTransactionModelAdmin = LedgerAccountModelAdmin = (
        admin.ModelAdmin
    )
    GatewayProcessModelAdmin = admin.ModelAdmin
    PostingTabularInline = admin.TabularInline


@admin.register(Wallet)
class WalletAdmin(_ReadOnly, WalletModelAdmin):
    list_display = ("account", "available", "balance", "held", "grant_link")
    fields = ("account", "available", "balance", "held", "grant_link")
    search_fields = ("account__name", "account__members__email")
    list_select_related = ("account",)

    @admin.display(ordering="balance_nanousd")
    def balance(self, wallet: Wallet) -> str:
        return _usd(wallet.balance_nanousd)

    @admin.display(ordering="held_nanousd")
    def held(self, wallet: Wallet) -> str:
        return _usd(wallet.held_nanousd)

    def available(self, wallet: Wallet) -> str:
        return _usd(wallet.available_nanousd)

    @admin.display(description="Credit")
    def grant_link(self, wallet: Wallet) -> SafeString:
        address = reverse("admin:billing_wallet_grant", args=[wallet.account_id])
        return format_html('<a href="{}">Grant credit</a>', address)

    def get_urls(self) -> list[URLPattern]:
        grant = self.admin_site.admin_view(self.grant)
        return [path("<int:account_id>/grant/", grant, name="billing_wallet_grant"), *super().get_urls()]

    def grant(self, request: HttpRequest, account_id: int) -> HttpResponse:
        """Give an account credit that nobody paid for, with a reason that its members read."""
        if not isinstance(request.user, User) or not request.user.has_perm("billing.change_wallet"):
            raise PermissionDenied
        account = get_object_or_404(Account, pk=account_id)
        form = GrantForm(request.POST or None, initial={"token": uuid.uuid4()})
        if form.is_valid():
            try:
                crediting.grant(
                    account=account,
                    amount_nanousd=form.cleaned_data["amount"],
                    reason=form.cleaned_data["reason"],
                    actor=request.user,
                    at=timezone.now(),
                    reference=f"grant:{form.cleaned_data['token']}",
                )
                messages.success(request, f"{_usd(form.cleaned_data['amount'])} granted to {account}.")
            except ledger.AlreadyPosted:
                messages.info(request, "This form was sent twice; the credit was granted once.")
            return redirect("admin:billing_wallet_change", account.pk)
        context = {
            **self.admin_site.each_context(request),
            "title": "Grant credit",
            "account": account,
            "form": form,
            "wallet": Wallet.objects.filter(account=account).first() or Wallet(),
            "opts": self.opts,
        }
        return render(request, "admin/billing/wallet/grant.html", context)


@admin.register(TopUp)
class TopUpAdmin(_ReadOnly, TopUpModelAdmin):
    list_display = ("id", "account", "status", "credit", "fee", "total", "provider", "created_at", "paid_at")
    fields = (
        "account",
        "created_by",
        "status",
        "credit",
        "fee",
        "total",
        "fee_rate",
        "provider",
        "provider_reference",
        "created_at",
        "paid_at",
    )
    list_filter = ("status", "provider")
    search_fields = ("account__name", "account__members__email", "provider_reference")
    list_select_related = ("account",)
    date_hierarchy = "created_at"

    @admin.display(ordering="credit_nanousd")
    def credit(self, topup: TopUp) -> str:
        return _usd(topup.credit_nanousd)

    @admin.display(ordering="fee_nanousd")
    def fee(self, topup: TopUp) -> str:
        return _usd(topup.fee_nanousd)

    @admin.display(ordering="total_nanousd")
    def total(self, topup: TopUp) -> str:
        return _usd(topup.total_nanousd)


class PostingInline(_ReadOnly, PostingTabularInline):
    model = Posting
    fields = ("ledger_account", "amount")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Posting]:
        return super().get_queryset(request).select_related("ledger_account")

    def amount(self, posting: Posting) -> str:
        return _usd(posting.amount_nanousd)


@admin.register(LedgerTransaction)
class LedgerTransactionAdmin(_ReadOnly, LedgerTransactionModelAdmin):
    list_display = ("reference", "kind", "account", "description", "created_at")
    list_filter = ("kind",)
    search_fields = ("reference", "account__name", "account__members__email")
    list_select_related = ("account",)
    date_hierarchy = "created_at"
    inlines = (PostingInline,)


@admin.register(LedgerAccount)
class LedgerAccountAdmin(_ReadOnly, LedgerAccountModelAdmin):
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
        return _usd(balance_nanousd or 0)


@admin.register(GatewayProcess)
class GatewayProcessAdmin(_ReadOnly, GatewayProcessModelAdmin):
    """What the processes say of the upstreams. The processes themselves come and go."""

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page "Upstream health"."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": "Upstream health",
            "observations": upstream_health.observed(at=timezone.now()),
        }
        return render(request, "admin/billing/gatewayprocess/upstream_health.html", context)
