"""Pages that join several apps: the way in, the overview, the docs and the outbox."""

from allauth.account.adapter import get_adapter
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.views.decorators.cache import never_cache

from accounts.acting import AccountRequest, acting_account_required
from accounts.models import Plan
from accounts.plans import PLANS
from catalog import listing
from catalog.models import Model
from config import outbox as kept_mail
from config.context import base_url
from config.error_guide import EXPLAINED
from config.overview import Overview
from usage import queries


def home(request: HttpRequest) -> HttpResponse:
    """What Tollgate is, for strangers; those who are signed in go to their overview."""
    if request.user.is_authenticated:
        return redirect(get_adapter().get_login_redirect_url(request))
    at = timezone.now()
    models = listing.listed(at=at)
    context = {
        "models": models,
        "example_model": _example(models),
        "basic": _plan(Plan.BASIC),
        "paid": _plan(Plan.PAY_AS_YOU_GO),
    }
    return render(request, "config/home.html", context)


@never_cache
@acting_account_required
def overview(request: AccountRequest) -> HttpResponse:
    """Where a person lands: credit, today's allowance, spend, and the first steps until they are done."""
    context = {"overview": Overview.load(account=request.account, at=timezone.now())}
    response = render(request, "config/_overview.html" if request.htmx else "config/overview.html", context)
    patch_vary_headers(response, ["HX-Request"])
    return response


@never_cache
@acting_account_required
def first_call(request: AccountRequest) -> HttpResponse:
    """What the overview asks every 2 s until the first call is there: nothing new (204), or the new overview."""
    if not queries.has_called(account=request.account):
        return HttpResponse(status=204)
    return overview(request)


def docs(request: HttpRequest) -> HttpResponse:
    """Quickstart, limits and errors, with the reader's own base URL."""
    context = {
        "base_url": base_url(request),
        "example_model": _example(listing.listed(at=timezone.now())),
        "explained": EXPLAINED,
        "plans": Plan.objects.filter(slug__in=PLANS).order_by("id"),
        "timeout_s": settings.GATEWAY_TOTAL_TIMEOUT_S,
        "max_body_mib": settings.GATEWAY_MAX_BODY_BYTES / 2**20,
    }
    return render(request, "config/docs.html", context)


@never_cache
def outbox(request: HttpRequest) -> HttpResponse:
    """The mail of embedded mode. Elsewhere there is no such page; to others than this machine it is closed."""
    if not settings.EMBEDDED or not kept_mail.is_local(request):
        raise Http404
    return render(
        request, "config/outbox.html", {"mails": kept_mail.newest(), "folder": kept_mail.outbox_folder()}
    )


def _example(models: list[listing.ListedModel]) -> str:
    """A model for examples: the first that chats, so a free one where there is any."""
    return next((row.model.slug for row in models if row.model.kind == Model.Kind.CHAT), "")


def _plan(slug: str) -> Plan | None:
    return Plan.objects.filter(slug=slug).first()
