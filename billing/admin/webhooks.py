"""What payment providers have told us, to read; `closing` ends the waiting of what nothing will come of."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.closing import close_event
from billing.admin.read_only import ReadOnly
from billing.models import PaymentReport, WebhookEvent

if TYPE_CHECKING:
    WebhookEventModelAdmin = admin.ModelAdmin[WebhookEvent]
    PaymentReportModelAdmin = admin.ModelAdmin[PaymentReport]
else:  # Django's classes take no type arguments at run time.
    WebhookEventModelAdmin = PaymentReportModelAdmin = admin.ModelAdmin


@admin.register(WebhookEvent)
class WebhookEventAdmin(ReadOnly, WebhookEventModelAdmin):
    list_display = ("event", "provider", "type", "outcome", "attempts", "received_at", "processed_at", "note")
    fields = (
        "provider",
        "event",
        "type",
        "news",
        "occurred_at",
        "received_at",
        "outcome",
        "processed_at",
        "attempts",
        "problem",
        "due_at",
        "closed_at",
        "closed_by",
        "note",
        "close_link",
    )
    list_filter = ("outcome", ("closed_at", admin.EmptyFieldListFilter), "provider", "type")
    search_fields = ("event", "news", "note")
    date_hierarchy = "received_at"

    @admin.display(description="Close")
    def close_link(self, event: WebhookEvent) -> SafeString | str:
        if event.outcome != WebhookEvent.Outcome.WAITING:
            return "It does not wait."
        address = reverse("admin:billing_webhookevent_close", args=[event.pk])
        return format_html('<a href="{}">Close it with a note</a>', address)

    def get_urls(self) -> list[URLPattern]:
        close = self.admin_site.admin_view(close_event)
        return [
            path("<int:event_id>/close/", close, name="billing_webhookevent_close"),
            *super().get_urls(),
        ]


@admin.register(PaymentReport)
class PaymentReportAdmin(ReadOnly, PaymentReportModelAdmin):
    """The evidence that the audit holds paid top-ups against."""

    list_display = ("payment", "provider", "reference", "amount", "said_at", "is_assumed")
    fields = ("provider", "payment", "reference", "amount", "said_at", "is_assumed")
    list_filter = ("provider", "currency", "is_assumed")
    search_fields = ("payment", "reference")
    date_hierarchy = "said_at"
    ordering = ("-said_at", "-id")

    @admin.display(ordering="amount_cents")
    def amount(self, report: PaymentReport) -> str:
        return report.amount
