"""The account that a page acts for. Every query of a page starts from it."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, cast

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import SimpleLazyObject

from accounts.models import Account, User

if TYPE_CHECKING:
    from django_htmx.middleware import HtmxDetails

P = ParamSpec("P")


class AccountRequest(HttpRequest):
    """A request as a view under `acting_account_required` sees it: somebody is signed in and acts for an account."""

    # The decorator has turned anonymous users away.
    user: User
    account: Account
    htmx: "HtmxDetails"


class ActingAccountMiddleware:
    """Sets `request.account` to the signed-in user's account, or None. Loaded when first used."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.account = SimpleLazyObject(lambda: _account_of(request))  # type: ignore[attr-defined]
        return self.get_response(request)


def acting_account_required(
    view: Callable[Concatenate[AccountRequest, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """Let only those in who are signed in and have an account; the view gets an `AccountRequest`.

    Strangers go to the login page. A user without an account (an operator made by `createsuperuser`) gets a page
    that says so, with status 403.
    """

    @wraps(view)
    def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        account = _account_of(request)
        if account is None:
            return render(request, "accounts/no_account.html", status=403)
        acting = cast("AccountRequest", request)
        acting.account = account
        return view(acting, *args, **kwargs)

    return login_required(checked)


def _account_of(request: HttpRequest) -> Account | None:
    if not request.user.is_authenticated:
        return None
    return (
        Account.objects.select_related("plan")
        .filter(memberships__user=request.user)
        .order_by("memberships__id")
        .first()
    )
