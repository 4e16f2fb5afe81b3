"""The catalogue in the operator's admin. Nothing is deleted here: usage refers to it, so it is disabled instead."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from catalog.addresses import UnsafeAddressError, judge_base_url
from catalog.models import Model, ModelAlias, Price, Protocol, Provider, Upstream

if TYPE_CHECKING:
    _ProviderAdmin = admin.ModelAdmin[Provider]
    _ModelAdmin = admin.ModelAdmin[Model]
    _UpstreamInline = admin.TabularInline[Upstream, Model]
    _AliasAdmin = admin.ModelAdmin[ModelAlias]
    _AliasInline = admin.TabularInline[ModelAlias, Model]
    _PriceInline = admin.TabularInline[Price, Model]
    _PriceForm = forms.ModelForm[Price]
    _ProviderForm = forms.ModelForm[Provider]
else:
    _ProviderAdmin = _ModelAdmin = _AliasAdmin = admin.ModelAdmin
    _UpstreamInline = _PriceInline = _AliasInline = admin.TabularInline
    _PriceForm = _ProviderForm = forms.ModelForm


class ProviderForm(_ProviderForm):
    """A provider, at an address that the gateway may connect to."""

    protocols = forms.MultipleChoiceField(
        choices=Protocol,
        widget=forms.CheckboxSelectMultiple,
        help_text="What its base URL answers. A model is served where an upstream speaks the endpoint's protocol.",
    )

    class Meta:
        model = Provider
        fields = ("slug", "name", "base_url", "protocols", "key_env", "output_limit_parameter")

    def clean_base_url(self) -> str:
        url: str = self.cleaned_data["base_url"]
        try:
            judge_base_url(url)
        except UnsafeAddressError as error:
            raise ValidationError(f"The gateway would not connect there: {error}.") from error
        return url


class PriceForm(_PriceForm):
    """A price to come. A moment that has passed means at once: what was, is not changed."""

    class Meta:
        model = Price
        fields = (
            "starts_at",
            "input_usd_per_mtok",
            "output_usd_per_mtok",
            "cached_input_usd_per_mtok",
            "cache_write_usd_per_mtok",
        )

    def clean_starts_at(self) -> Any:
        return max(self.cleaned_data["starts_at"], timezone.now())


class ComingPrices(_PriceInline):
    """Prices that do not hold yet: they may still be added, changed and withdrawn."""

    model = Price
    form = PriceForm
    extra = 0
    verbose_name = "coming price"
    verbose_name_plural = "coming prices (times are UTC; a past moment means at once)"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Price]:
        return super().get_queryset(request).filter(starts_at__gt=timezone.now())


class PastPrices(_PriceInline):
    """Prices that hold or have held. Receipts refer to them."""

    model = Price
    extra = 0
    can_delete = False
    fields = readonly_fields = (
        "starts_at",
        "input_usd_per_mtok",
        "output_usd_per_mtok",
        "cached_input_usd_per_mtok",
        "cache_write_usd_per_mtok",
        "source",
    )
    verbose_name = "price"
    verbose_name_plural = "prices until now (read only; the first one holds)"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Price]:
        return super().get_queryset(request).filter(starts_at__lte=timezone.now())

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Upstreams(_UpstreamInline):
    model = Upstream
    extra = 0
    autocomplete_fields = ("provider",)


class Aliases(_AliasInline):
    model = ModelAlias
    extra = 0


@admin.register(Provider)
class ProviderAdmin(_ProviderAdmin):
    form = ProviderForm
    list_display = ("name", "slug", "base_url", "key_env", "output_limit_parameter")
    search_fields = ("name", "slug")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Model)
class ModelAdmin(_ModelAdmin):
    list_display = (
        "slug",
        "name",
        "provider",
        "tier",
        "kind",
        "context_window",
        "max_output_tokens",
        "supports_tools",
        "supports_images",
        "is_enabled",
    )
    list_filter = ("is_enabled", "tier", "kind", "supports_tools", "supports_images", "provider")
    list_select_related = ("provider",)
    search_fields = ("slug", "name", "upstreams__upstream_model", "aliases__name")
    autocomplete_fields = ("provider",)
    inlines = (ComingPrices, PastPrices, Upstreams, Aliases)
    actions = ("enable", "disable")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.action(description="Enable the selected models", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        self.message_user(request, f"{queryset.update(is_enabled=True)} models enabled.")

    @admin.action(description="Disable the selected models: they answer 404", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        self.message_user(request, f"{queryset.update(is_enabled=False)} models disabled.")


@admin.register(ModelAlias)
class ModelAliasAdmin(_AliasAdmin):
    list_display = ("name", "model")
    list_select_related = ("model",)
    search_fields = ("name", "model__slug")
    autocomplete_fields = ("model",)
