"""The settings of an account: its name, its people, and the trail of what they did."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse

from accounts import renaming, trail
from accounts.acting import AccountRequest, acting_account_required
from accounts.forms import AccountNameForm


@acting_account_required
def settings(request: AccountRequest) -> HttpResponse:
    """The account's name, members and plan, and the way to everything that concerns the person."""
    may_rename = renaming.may_rename(account=request.account, user=request.user)
    # A form of its own copy: an invalid name must not show up in the rest of the page.
    form = AccountNameForm(request.POST or None, initial={"name": request.account.name})
    if request.method == "POST":
        if not may_rename:
            raise PermissionDenied("Only owners and admins of an account may rename it.")
        if form.is_valid():
            renaming.rename(account=request.account, name=form.cleaned_data["name"], actor=request.user)
            messages.success(request, "The account has a new name.")
            return redirect("accounts:settings")
    context = {
        "form": form,
        "may_rename": may_rename,
        "members": request.account.memberships.select_related("user").order_by("id"),
    }
    return render(request, "accounts/settings.html", context, status=422 if form.is_bound else 200)


@acting_account_required
def audit_log(request: AccountRequest) -> HttpResponse:
    """Who did what in the account, the newest first."""
    page = trail.read(
        account=request.account,
        older_than=_id_of(request.GET, "older_than"),
        newer_than=_id_of(request.GET, "newer_than"),
    )
    address = reverse("accounts:audit_log")
    context = {
        "page": page,
        "newer_href": f"{address}?newer_than={page.newer_than}" if page.newer_than else "",
        "older_href": f"{address}?older_than={page.older_than}" if page.older_than else "",
    }
    return render(request, "accounts/audit_log.html", context)


def _id_of(query: QueryDict, name: str) -> int | None:
    """An id of the address; whatever is none asks for the newest page."""
    value = query.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < len(str(2**63)) else None
