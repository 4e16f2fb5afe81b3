"""Wallets, and granting credit with a reason."""

import uuid
from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.models import Account, User
from billing import crediting, ledger
from billing.admin.read_only import ReadOnly, usd
from billing.admin.taking import take_credit
from billing.forms import GrantForm
from billing.models import Wallet

if TYPE_CHECKING:
    WalletModelAdmin = admin.ModelAdmin[Wallet]
else:  # Django's classes take no type arguments at run time.
    WalletModelAdmin = admin.ModelAdmin


@admin.register(Wallet)
class WalletAdmin(ReadOnly, WalletModelAdmin):
    list_display = ("account", "available", "balance", "held", "grant_link")
    fields = ("account", "available", "balance", "held", "grant_link")
    search_fields = ("account__name", "account__members__email")
    list_select_related = ("account",)

    @admin.display(ordering="balance_nanousd")
    def balance(self, wallet: Wallet) -> str:
        return usd(wallet.balance_nanousd)

    @admin.display(ordering="held_nanousd")
    def held(self, wallet: Wallet) -> str:
        return usd(wallet.set_aside_nanousd)

    def available(self, wallet: Wallet) -> str:
        return usd(wallet.available_nanousd)

    @admin.display(description="Credit")
    def grant_link(self, wallet: Wallet) -> SafeString:
        grant, take = (
            reverse(f"admin:billing_wallet_{act}", args=[wallet.account_id]) for act in ("grant", "take")
        )
        return format_html('<a href="{}">Grant credit</a> <a href="{}">Take credit</a>', grant, take)

    def get_urls(self) -> list[URLPattern]:
        grant = self.admin_site.admin_view(self.grant)
        take = self.admin_site.admin_view(take_credit)
        return [
            path("<int:account_id>/grant/", grant, name="billing_wallet_grant"),
            path("<int:account_id>/take/", take, name="billing_wallet_take"),
            *super().get_urls(),
        ]

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
                    expires_at=form.expires_at,
                )
                messages.success(request, f"{usd(form.cleaned_data['amount'])} granted to {account}.")
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
