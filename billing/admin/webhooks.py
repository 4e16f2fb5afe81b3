"""What payment providers have told us, to read."""

from typing import TYPE_CHECKING

from django.contrib import admin

from billing.admin.read_only import ReadOnly
from billing.models import WebhookEvent

if TYPE_CHECKING:
    WebhookEventModelAdmin = admin.ModelAdmin[WebhookEvent]
else:  # Django's classes take no type arguments at run time.
    WebhookEventModelAdmin = admin.ModelAdmin


@admin.register(WebhookEvent)
class WebhookEventAdmin(ReadOnly, WebhookEventModelAdmin):
    list_display = ("event", "provider", "type", "outcome", "attempts", "received_at", "processed_at")
    list_filter = ("outcome", "provider", "type")
    search_fields = ("event", "news")
    date_hierarchy = "received_at"
