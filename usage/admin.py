"""Usage in the operator's admin: to look at, never to edit."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from catalog.money import usd_string
from usage.models import Anomaly, DailyAllowance, HourlyUsage, UsageRecord

if TYPE_CHECKING:
    ReadOnly = admin.ModelAdmin[Any]
else:
    ReadOnly = admin.ModelAdmin


class _UpstreamFilter(admin.AllValuesFieldListFilter):
    """Every upstream that was called, and a name for "none was", which is an empty text."""

    def choices(self, changelist: Any) -> Iterator[Any]:
        for choice in super().choices(changelist):
            yield {**choice, "display": choice["display"] or "None called"}


class _ReadOnlyAdmin(ReadOnly):
    """What the gateway and the tasks have written is evidence."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related(*self.list_select_related_always)

    list_select_related_always: tuple[str, ...] = ("account", "key", "model")


@admin.display(description="charged, USD", ordering="charged_nanousd")
def charged_usd(row: UsageRecord | HourlyUsage) -> str:
    return usd_string(row.charged_nanousd)


@admin.display(description="observed, USD", ordering="observed_nanousd")
def observed_usd(row: Anomaly) -> str:
    return usd_string(row.observed_nanousd)


@admin.display(description="expected, USD", ordering="expected_nanousd")
def expected_usd(row: Anomaly) -> str:
    return usd_string(row.expected_nanousd)


@admin.register(UsageRecord)
class UsageRecordAdmin(_ReadOnlyAdmin):
    list_display = (
        "id", "started_at", "account", "key", "model", "outcome", "status", "error_code",
        "input_tokens", "output_tokens", charged_usd, "latency_ms",
    )  # fmt: skip
    list_filter = ("outcome", "status", "is_estimated", ("upstream", _UpstreamFilter))
    search_fields = ("=id", "=account__name", "=client_request_id")
    ordering = ("-id",)


@admin.register(HourlyUsage)
class HourlyUsageAdmin(_ReadOnlyAdmin):
    list_display = (
        "hour", "account", "key", "model", "outcome", "requests", "input_tokens", "output_tokens", charged_usd,
    )  # fmt: skip
    list_filter = ("outcome",)
    search_fields = ("=account__name",)
    ordering = ("-hour", "-id")


@admin.register(DailyAllowance)
class DailyAllowanceAdmin(_ReadOnlyAdmin):
    list_display = (
        "day", "account", "requests", "tokens", "held_tokens", "share", "warned_at", "exhausted_at",
    )  # fmt: skip
    list_filter = ("day",)
    search_fields = ("=account__name",)
    ordering = ("-day", "-share")
    list_select_related_always = ("account",)


@admin.register(Anomaly)
class AnomalyAdmin(_ReadOnlyAdmin):
    list_display = (
        "hour", "last_hour", "account", "key", "model", observed_usd, expected_usd, "mailed_at", "acknowledged_at",
    )  # fmt: skip
    search_fields = ("=account__name",)
    date_hierarchy = "hour"
