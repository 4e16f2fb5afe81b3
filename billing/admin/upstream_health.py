"""How the upstreams are doing."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from billing import upstream_health
from billing.admin.read_only import ReadOnly
from billing.models import GatewayProcess

if TYPE_CHECKING:
    GatewayProcessModelAdmin = admin.ModelAdmin[GatewayProcess]
else:  # Django's classes take no type arguments at run time.
    GatewayProcessModelAdmin = admin.ModelAdmin


@admin.register(GatewayProcess)
class GatewayProcessAdmin(ReadOnly, GatewayProcessModelAdmin):
    """What the processes say of the upstreams. The processes themselves come and go."""

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page "Upstream health"."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": "Upstream health",
            "observations": upstream_health.observed(at=timezone.now()),
        }
        return render(request, "admin/billing/gatewayprocess/upstream_health.html", context)
