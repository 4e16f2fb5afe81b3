"""Top-ups: what was bought, and what became of it."""

import contextlib
from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import URLPattern, path

from accounts.models import User
from billing import topping_up
from billing.admin.read_only import ReadOnly, usd
from billing.admin.refunds import refund_topup
from billing.models import TopUp

if TYPE_CHECKING:
    TopUpModelAdmin = admin.ModelAdmin[TopUp]
else:  # Django's classes take no type arguments at run time.
    TopUpModelAdmin = admin.ModelAdmin


@admin.register(TopUp)
class TopUpAdmin(ReadOnly, TopUpModelAdmin):
    list_display = ("id", "account", "status", "credit", "fee", "total", "provider", "created_at", "paid_at")
    fields = (
        "account",
        "created_by",
        "status",
        "credit",
        "fee",
        "total",
        "rate",
        "provider",
        "provider_reference",
        "provider_payment",
        "method",
        "failure",
        "created_at",
        "paid_at",
    )
    list_filter = ("status", "origin", "provider")
    search_fields = ("account__name", "account__members__email", "provider_reference", "provider_payment")
    list_select_related = ("account",)
    date_hierarchy = "created_at"
    actions = ("cancel",)

    def get_urls(self) -> list[URLPattern]:
        refund = self.admin_site.admin_view(refund_topup)
        return [path("<int:topup_id>/refund/", refund, name="billing_topup_refund"), *super().get_urls()]

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_topup")

    @admin.action(
        description="Cancel what waits: the payment company shows no payment", permissions=["operate"]
    )
    def cancel(self, request: HttpRequest, queryset: QuerySet[TopUp]) -> None:
        """For a payment of which its company will never say more. Should it come all the same, it is credited."""
        waiting = queryset.filter(status=TopUp.Status.PENDING)
        actor = request.user if isinstance(request.user, User) else None
        canceled = 0
        for topup in waiting:
            with contextlib.suppress(topping_up.AlreadyPaid):
                canceled += topping_up.cancel(topup=topup, actor=actor).status == TopUp.Status.CANCELED
        self.message_user(request, f"{canceled} canceled.", messages.SUCCESS)

    @admin.display(ordering="credit_nanousd")
    def credit(self, topup: TopUp) -> str:
        return usd(topup.credit_nanousd)

    @admin.display(ordering="fee_nanousd")
    def fee(self, topup: TopUp) -> str:
        return usd(topup.fee_nanousd)

    @admin.display(description="Fee rate")
    def rate(self, topup: TopUp) -> str:
        return f"{topup.fee_percent}\u00a0%"

    @admin.display(ordering="total_nanousd")
    def total(self, topup: TopUp) -> str:
        return usd(topup.total_nanousd)
