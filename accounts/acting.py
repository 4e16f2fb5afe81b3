"""The account that a page acts for. Every query of a page starts from it."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils.functional import SimpleLazyObject

from accounts.models import Account


class ActingAccountMiddleware:
    """Sets `request.account` to the signed-in user's account, or None. Loaded when first used."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.account = SimpleLazyObject(lambda: _account_of(request))  # type: ignore[attr-defined]
        return self.get_response(request)


def _account_of(request: HttpRequest) -> Account | None:
    if not request.user.is_authenticated:
        return None
    return (
        Account.objects.select_related("plan").filter(memberships__user=request.user).order_by("memberships__id").first()
    )
