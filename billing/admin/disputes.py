"""Disputes, to read: the open ones first. They are answered at the payment company."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.db.models import Case, When

from billing.admin.read_only import ReadOnly, usd
from billing.models import Dispute

if TYPE_CHECKING:
    DisputeModelAdmin = admin.ModelAdmin[Dispute]
else:  # Django's classes take no type arguments at run time.
    DisputeModelAdmin = admin.ModelAdmin


@admin.register(Dispute)
class DisputeAdmin(ReadOnly, DisputeModelAdmin):
    list_display = ("id", "account", "status", "amount", "frozen", "loss", "respond_by")
    fields = (
        "account",
        "topup",
        "status",
        "reason",
        "amount",
        "frozen",
        "fee",
        "loss",
        "to_take",
        "provider_dispute",
        "opened_at",
        "respond_by",
        "closed_at",
    )
    list_filter = ("status", "topup__provider")
    search_fields = ("account__name", "account__members__email", "provider_dispute")
    list_select_related = ("account",)
    # The open ones first, the soonest deadline before the others.
    ordering = (Case(When(status=Dispute.Status.OPEN, then=0), default=1).asc(), "respond_by", "-id")

    @admin.display(ordering="amount_nanousd")
    def amount(self, dispute: Dispute) -> str:
        return usd(dispute.amount_nanousd)

    @admin.display(ordering="frozen_nanousd", description="Frozen or lost credit")
    def frozen(self, dispute: Dispute) -> str:
        return usd(dispute.frozen_nanousd)

    @admin.display(ordering="fee_nanousd", description="Of the fee")
    def fee(self, dispute: Dispute) -> str:
        return usd(dispute.fee_nanousd)

    @admin.display(ordering="loss_nanousd", description="Not covered by credit")
    def loss(self, dispute: Dispute) -> str:
        return usd(dispute.loss_nanousd)

    @admin.display(description="Of that still to take, held by requests")
    def to_take(self, dispute: Dispute) -> str:
        return usd(dispute.to_take_nanousd)
