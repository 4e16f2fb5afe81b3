"""Keys as the operator sees them: who has them and how they stand, never a secret or its digest."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from accounts.models import User
from keys import revoking
from keys.locking import RevokedKeyError
from keys.models import ApiKey, KeySecret

if TYPE_CHECKING:
    _KeyAdmin = admin.ModelAdmin[ApiKey]
    _SecretInline = admin.TabularInline[KeySecret, ApiKey]
else:
    _KeyAdmin = admin.ModelAdmin
    _SecretInline = admin.TabularInline


class _ReadOnly:
    """Changes go through domain functions and a policy is its account's business: nothing to save here."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class KeySecretInline(_ReadOnly, _SecretInline):
    model = KeySecret
    fields = readonly_fields = ("start", "end", "created_at", "retires_at")
    verbose_name_plural = "secrets (only how they begin and end is known)"


@admin.register(ApiKey)
class ApiKeyAdmin(_ReadOnly, _KeyAdmin):
    list_display = ("name", "account", "environment", "status", "owner", "expires_at", "created_at")
    list_filter = ("status", "environment", "created_at")
    list_select_related = ("account", "owner")
    search_fields = ("name", "purpose", "account__name", "owner__email", "secrets__start", "secrets__end")
    search_help_text = "Name, purpose, account, owner, or the first or last characters of a secret."
    date_hierarchy = "created_at"
    inlines: ClassVar = [KeySecretInline]
    actions = ("disable", "enable", "revoke")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the operator may switch keys: what Django calls changing them."""
        return request.user.has_perm("keys.change_apikey")

    @admin.action(description="Disable: refuse until enabled again", permissions=["operate"])
    def disable(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self._act(request, queryset, revoking.disable, "disabled")

    @admin.action(description="Enable: serve again", permissions=["operate"])
    def enable(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self._act(request, queryset, revoking.enable, "enabled")

    @admin.action(description="Revoke for good: cannot be undone", permissions=["operate"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self._act(request, queryset, revoking.revoke, "revoked")

    def _act(
        self, request: HttpRequest, queryset: QuerySet[ApiKey], act: Callable[..., ApiKey], done: str
    ) -> None:
        actor = request.user if isinstance(request.user, User) else None
        left = 0
        for key in queryset:
            try:
                act(key=key, actor=actor, at=timezone.now())
            except RevokedKeyError:
                left += 1
        self.message_user(request, f"{len(queryset) - left} of {len(queryset)} keys are {done}.")
        if left:
            self.message_user(request, f"{left} had been revoked, which is final.", level=messages.WARNING)
