"""Wallets, and what an operator gives and takes."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.granting import grant_credit
from billing.admin.read_only import ReadOnly, usd
from billing.admin.taking import take_credit
from billing.models import Wallet

if TYPE_CHECKING:
    WalletModelAdmin = admin.ModelAdmin[Wallet]
else:  # Django's classes take no type arguments at run time.
    WalletModelAdmin = admin.ModelAdmin


@admin.register(Wallet)
class WalletAdmin(ReadOnly, WalletModelAdmin):
    list_display = ("account", "available", "balance", "held", "acts")
    fields = ("account", "available", "balance", "held", "acts")
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

    @admin.display(description="What to do")
    def acts(self, wallet: Wallet) -> SafeString:
        grant, take, money = (
            reverse(f"admin:billing_{act}", args=[wallet.account_id])
            for act in ("wallet_grant", "wallet_take", "account_money")
        )
        links = '<a href="{}">Grant credit</a> · <a href="{}">Take credit</a> · <a href="{}">Its money</a>'
        return format_html(links, grant, take, money)

    def get_urls(self) -> list[URLPattern]:
        grant = self.admin_site.admin_view(grant_credit)
        take = self.admin_site.admin_view(take_credit)
        return [
            path("<int:account_id>/grant/", grant, name="billing_wallet_grant"),
            path("<int:account_id>/take/", take, name="billing_wallet_take"),
            *super().get_urls(),
        ]
