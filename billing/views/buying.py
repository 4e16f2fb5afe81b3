"""Buying credit: the amount, the payment page, and the way back from it."""

from typing import Any

from django.conf import settings
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from accounts.acting import AccountRequest, acting_account_required
from billing import topping_up
from billing.forms import BuyForm
from billing.models import TopUp
from billing.providers import offering
from billing.views.paging import page_or_fragment
from catalog.money import NANO_PER_CENT, usd_from_nano

PRESETS_USD = (5, 20, 50, 100)


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def buy(request: AccountRequest) -> HttpResponse:
    """Choose an amount, see its fee and total, and go to the payment page.

    Nobody gets there without having seen the total: a form that does not carry the right one is asked again.
    """
    offered = offering.configured()
    if not offered:
        return render(request, "billing/buy_unavailable.html")
    provider, plan = offered[0], request.account.plan
    if request.method != "POST":
        # The second of the usual amounts is where most people end.
        usual = [str(usd) for usd in _presets()[:2]]
        chosen = request.GET.get("credit") or (usual[-1] if usual else "")
        return _buy_page(request, BuyForm({"credit": chosen}, plan=plan))
    form = BuyForm(request.POST, plan=plan)
    if not form.is_valid() or form.quote is None:
        return _buy_page(request, form, status=422)
    if form.cleaned_data["seen_total"] != form.quote.total_nanousd // NANO_PER_CENT:
        context = {"provider": provider, **_as_shown(form.quote)}
        return render(request, "billing/buy_confirm.html", context)
    topup = topping_up.start(
        account=request.account,
        actor=request.user,
        credit_nanousd=form.quote.credit_nanousd,
        provider=provider.slug,
        at=timezone.now(),
    )
    checkout = provider.start_checkout(
        topup=topup,
        return_url=request.build_absolute_uri(reverse("billing:return", args=[topup.pk])),
        cancel_url=request.build_absolute_uri(reverse("billing:buy")),
    )
    topping_up.keep_checkout(topup=topup, checkout=checkout)
    return HttpResponseRedirect(checkout.url)


@require_safe
@acting_account_required
def returned(request: AccountRequest, topup_id: int) -> HttpResponse:
    """Where the payment page sends the buyer back to; it looks again by itself until the payment has arrived."""
    topup = get_object_or_404(TopUp, pk=topup_id, account=request.account)
    return page_or_fragment(request, "billing/return.html", "billing/_return.html", {"topup": topup})


def _buy_page(request: AccountRequest, form: BuyForm, *, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        **(_as_shown(form.quote) if form.is_valid() and form.quote else {}),
        "presets": _presets(),
        "fee_rate": request.account.plan.topup_fee_rate,
        "minimum_cents": int(settings.TOPUP_MINIMUM_USD * 100),
        "maximum_cents": int(settings.TOPUP_MAXIMUM_USD * 100),
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
