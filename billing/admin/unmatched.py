"""Payments that fit no top-up, to read; `resolving` is what becomes of them."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.filters import by_presence
from billing.admin.read_only import ReadOnly
from billing.admin.resolving import resolve_payment
from billing.models import UnmatchedPayment

if TYPE_CHECKING:
    UnmatchedPaymentModelAdmin = admin.ModelAdmin[UnmatchedPayment]
else:  # Django's classes take no type arguments at run time.
    UnmatchedPaymentModelAdmin = admin.ModelAdmin


@admin.register(UnmatchedPayment)
class UnmatchedPaymentAdmin(ReadOnly, UnmatchedPaymentModelAdmin):
    list_display = ("payment", "amount", "why", "seen_at", "resolve_link")
    fields = (
        "provider",
        "payment",
        "amount",
        "reference",
        "why",
        "event",
        "seen_at",
        "mailed_at",
        "resolved_at",
        "resolved_by",
        "note",
        "topup",
        "resolve_link",
    )
    list_filter = (
        ("resolved_at", by_presence(title="state", absent="Waits for you", present="Resolved")),
        "provider",
    )
    search_fields = ("payment", "reference", "note")

    @admin.display(description="Resolve")
    def resolve_link(self, payment: UnmatchedPayment) -> SafeString | str:
        if payment.resolved_at is not None:
            return "Resolved"
        address = reverse("admin:billing_unmatchedpayment_resolve", args=[payment.pk])
        return format_html('<a href="{}">Credit or close it</a>', address)

    def get_urls(self) -> list[URLPattern]:
        resolve = self.admin_site.admin_view(resolve_payment)
        return [
            path("<int:payment_id>/resolve/", resolve, name="billing_unmatchedpayment_resolve"),
            *super().get_urls(),
        ]
