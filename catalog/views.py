"""The page /models/."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe
from django_htmx.middleware import HtmxDetails

from catalog.listing import listed
from catalog.models import Model


class PageRequest(HttpRequest):
    """What django-htmx's middleware makes of a request."""

    htmx: HtmxDetails


@require_safe
@login_required
def model_list(request: PageRequest) -> HttpResponse:
    """What can be called and what it costs; the form filters it. The same for every account."""
    search = request.GET.get("q", "").strip().replace("\0", "")[:100]
    tier, kind = request.GET.get("tier", ""), request.GET.get("kind", "")
    tier = tier if tier in Model.Tier.values else ""
    kind = kind if kind in Model.Kind.values else ""
    context = {
        "models": listed(at=timezone.now(), search=search, tier=tier, kind=kind),
        "search": search,
        "tier": tier,
        "kind": kind,
        "tiers": Model.Tier.choices,
        "kinds": Model.Kind.choices,
        "is_filtered": bool(search or tier or kind),
    }
    # A step back in the browser's history asks through htmx for the whole page.
    is_fragment = request.htmx and not request.htmx.history_restore_request
    response = render(
        request, "catalog/_model_table.html" if is_fragment else "catalog/model_list.html", context
    )
    patch_vary_headers(response, ["HX-Request"])
    return response
