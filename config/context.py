"""What every page of the console knows."""

from functools import cache
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest

from accounts.models import User
from billing.models import Wallet
from config import navigation


def base_url(request: HttpRequest) -> str:
    """The address people reach us at, without a trailing slash: PUBLIC_URL, or else the request's own host.

    Empty where the host is forged: the page that says so is a page too.
    """
    try:
        return settings.PUBLIC_URL or f"{request.scheme}://{request.get_host()}"
    except DisallowedHost:
        return ""


def console(request: HttpRequest) -> dict[str, Any]:
    """Context processor: the API's base URL for snippets, what kind of installation this is, menu and credit.

    `wallet` is a function, so that only the pages that show it pay its query.
    """
    account = getattr(request, "account", None)

    @cache
    def wallet() -> Wallet:
        """The account's wallet; an empty one where billing has not needed to make it yet."""
        found = Wallet.objects.filter(account_id=account.pk).first() if account else None
        return found or Wallet()

    user: User | AnonymousUser | None = getattr(request, "user", None)
    return {
        "api_base_url": f"{base_url(request)}/v1",
        "mail_is_kept": settings.MAIL_IS_KEPT,
        "is_sandbox": bool(settings.SANDBOX_UPSTREAM_URL),
        "account": account,
        "wallet": wallet,
        "navigation": navigation.entries(
            path=request.path,
            is_signed_in=user is not None and user.is_authenticated,
            is_operator=user is not None and user.is_active and user.is_staff,
        ),
    }
