"""What every page of the console knows."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def base_url(request: HttpRequest) -> str:
    """The address people reach us at, without a trailing slash: PUBLIC_URL, or else the request's own host."""
    return settings.PUBLIC_URL or f"{request.scheme}://{request.get_host()}"


def console(request: HttpRequest) -> dict[str, Any]:
    """Context processor: the API's base URL for snippets, and what kind of installation this is."""
    return {
        "api_base_url": f"{base_url(request)}/v1",
        "is_embedded": settings.EMBEDDED,
        "is_sandbox": bool(settings.SANDBOX_UPSTREAM_URL),
        "account": getattr(request, "account", None),
    }
