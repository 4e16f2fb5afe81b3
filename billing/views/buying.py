"""Buying credit: the amount, the payment page, and the way back from it."""

import secrets
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from accounts.acting import AccountRequest, acting_account_required
from billing import topping_up
from billing.forms import BuyForm
from billing.models import TopUp
from billing.providers import offering
from billing.providers.provider import ProviderAway, ProviderRefused
from billing.views.paging import page_or_fragment
from catalog.money import NANO_PER_CENT, usd_from_nano

PRESETS_USD = (5, 20, 50, 100)
# The page after a payment looks every two seconds; from this look on, half a minute later, it says what may be wrong.
_LATE_LOOK = 15
_MOST_DIGITS = 6


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def buy(request: AccountRequest) -> HttpResponse:
    """Choose an amount, see its fee and total, and go to the payment page.

    Nobody gets there without having seen the total: a form that does not carry the right one is asked again.
    """
    offered = offering.configured()
    if not offered or topping_up.limits_problem():
        return render(request, "billing/buy_unavailable.html")
    plan = request.account.plan
    if request.method != "POST":
        # The second of the usual amounts is where most people end.
        usual = [str(usd) for usd in _presets()[:2]]
        chosen = request.GET.get("credit") or (usual[-1] if usual else "")
        return _buy_page(request, BuyForm({"credit": chosen}, plan=plan, offered=offered))
    form = BuyForm(request.POST, plan=plan, offered=offered)
    if not form.is_valid() or form.quote is None:
        return _buy_page(request, form, status=422)
    if form.cleaned_data["seen_total"] != form.quote.total_nanousd // NANO_PER_CENT:
        context = {"form": form, "provider": form.chosen, **_as_shown(form.quote)}
        return render(request, "billing/buy_confirm.html", context)
    try:
        topup = topping_up.start(
            account=request.account,
            actor=request.user,
            credit_nanousd=form.quote.credit_nanousd,
            provider=form.chosen.slug,
            at=timezone.now(),
            saves_method=form.keeps_method,
            submission=form.submission,
        )
    except topping_up.AmountNotOffered as refused:
        form.add_error("credit", str(refused))
        return _buy_page(request, form, status=422)
    return _to_payment(request, topup, form)


@require_safe
@acting_account_required
def pay(request: AccountRequest, topup_id: int) -> HttpResponse:
    """On to the payment page, which is another company's: a form of ours may not lead there, but a page may."""
    topup = get_object_or_404(TopUp, pk=topup_id, account=request.account)
    if not _is_payable(topup):
        return redirect("billing:return", topup.pk)
    return render(request, "billing/pay.html", {"topup": topup})


@require_safe
@acting_account_required
def returned(request: AccountRequest, topup_id: int) -> HttpResponse:
    """Where the payment page sends the buyer back to; it looks again by itself until the payment has arrived."""
    topup = get_object_or_404(TopUp, pk=topup_id, account=request.account)
    asked = request.GET.get("look", "")
    look = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < _MOST_DIGITS else 0
    context = {
        "topup": topup,
        "is_payable": _is_payable(topup),
        "has_left": "left" in request.GET,
        "next_look": look + 1,
        "is_late": look >= _LATE_LOOK,
    }
    return page_or_fragment(request, "billing/return.html", "billing/_return.html", context)


def _to_payment(request: AccountRequest, topup: TopUp, form: BuyForm) -> HttpResponse:
    """The payment page of the top-up, or what has become of it: the form may have been sent before."""
    back = request.build_absolute_uri(reverse("billing:return", args=[topup.pk]))
    if topup.status == TopUp.Status.PENDING and not topup.checkout_url:
        try:
            checkout = form.chosen.start_checkout(topup=topup, return_url=back, cancel_url=f"{back}?left=1")
        except ProviderAway:
            # The same form sent again goes on with the same top-up.
            form.add_error(None, f"{form.chosen.name} does not answer. Nothing was charged; try again.")
            return _buy_page(request, form, status=503)
        except ProviderRefused as refused:
            topping_up.give_up(
                provider=topup.provider, reference=topup.provider_reference, message=str(refused)
            )
            form.add_error(None, str(refused))
            return _buy_page(request, form, status=503, is_fresh=True)
        topping_up.keep_checkout(topup=topup, checkout=checkout)
    if _is_payable(topup) and topup.checkout_url.startswith("/"):
        return redirect(topup.checkout_url)
    return redirect("billing:pay", topup.pk)


def _is_payable(topup: TopUp) -> bool:
    """Whether there is a page on which it can still be paid."""
    has_ended = topup.checkout_expires_at is not None and topup.checkout_expires_at <= timezone.now()
    return topup.status == TopUp.Status.PENDING and bool(topup.checkout_url) and not has_ended


def _buy_page(
    request: AccountRequest, form: BuyForm, *, status: int = 200, is_fresh: bool = False
) -> HttpResponse:
    sent = "" if is_fresh else request.POST.get("token", "")
    form.is_valid()  # reading the amount makes the quote
    context = {
        "form": form,
        **(_as_shown(form.quote) if form.quote else {}),
        "token": sent or secrets.token_urlsafe(16),
        "presets": _presets(),
        "fee_rate": request.account.plan.topup_fee_rate,
        "minimum_cents": int(settings.TOPUP_MINIMUM_USD * 100),
        "maximum_cents": int(settings.TOPUP_MAXIMUM_USD * 100),
        "can_keep_method": any(provider.saves_methods for provider in form.offered.values()),
    }
    return render(request, "billing/buy.html", context, status=status)


def _presets() -> list[int]:
    return [usd for usd in PRESETS_USD if settings.TOPUP_MINIMUM_USD <= usd <= settings.TOPUP_MAXIMUM_USD]


def _as_shown(quote: topping_up.Quote) -> dict[str, Any]:
    """A quote to read, and the fields by which the form says that the buyer has read it."""
    return {
        "quote": quote,
        "fee_percent": f"{(quote.fee_rate * 100).normalize():f}",
        "credit": f"{usd_from_nano(quote.credit_nanousd):.2f}",
        "seen_total": quote.total_nanousd // NANO_PER_CENT,
    }
