"""A page on which the operator does something about money: a form, then what it will do, asked once."""

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from accounts.models import Account, Membership, User


def operator(request: HttpRequest, permission: str) -> User | None:
    """Who asks, if they may."""
    return request.user if isinstance(request.user, User) and request.user.has_perm(permission) else None


def named(account: Account) -> str:
    """An account so that two of one name are not mistaken for each other: with its number and its owner's e-mail."""
    owners = account.memberships.filter(role=Membership.Role.OWNER).order_by("pk")
    addresses = ", ".join(owners.values_list("user__email", flat=True))
    return f"account {account.pk}, {account.name} ({addresses or 'without an owner'})"


def is_confirmed(request: HttpRequest, form: forms.Form) -> bool:
    """Whether the form can be acted on: it is valid, and whoever sent it has read what it will do."""
    return form.is_valid() and request.POST.get("confirmed") == "yes"


def page(
    request: HttpRequest,
    *,
    title: str,
    facts: list[str],
    effect: str,
    form: forms.Form,
    back: str,
    about: Model | type[Model],
    site: admin.AdminSite = admin.site,
) -> HttpResponse:
    """The form with the facts beside it; once it is valid, the `effect` with a button that does it.

    `about` is what it is done to, or what kind of thing: the way to it in the admin is above the page.
    """
    context = {
        **site.each_context(request),
        "title": title,
        "facts": facts,
        "effect": effect if form.is_valid() else "",
        "form": form,
        "back": back,
        "kind": about._meta,  # noqa: SLF001 - Django documents it
        "about": about if isinstance(about, Model) else None,
    }
    return render(request, "admin/billing/asking.html", context, status=422 if form.errors else 200)
