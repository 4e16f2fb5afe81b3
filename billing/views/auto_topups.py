"""Auto top-up: what is bought when, agreed to on a page that says what each purchase charges."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from accounts.acting import AccountRequest, acting_account_required
from billing import auto_topping_up
from billing.forms import AutoTopUpForm
from billing.models import AutoTopUp, TopUp
from billing.topping_up import Quote
from catalog.money import NANO_PER_CENT, usd_from_nano

_HISTORY = 10


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def auto_topup(request: AccountRequest) -> HttpResponse:
    """Choose what is bought when, see what it charges, and agree to it.

    Nobody agrees to what they have not seen: a form that does not carry the right total is asked again.
    """
    auto = AutoTopUp.objects.select_related("agreed_by").filter(account=request.account).first()
    form = AutoTopUpForm(request.POST or None, account=request.account, initial=_as_typed(auto))
    if not form.is_valid() or form.quote is None:
        return _page(request, form, auto, status=422 if form.errors else 200)
    if form.cleaned_data["agreed_total"] != form.quote.total_nanousd // NANO_PER_CENT:
        return _confirm(request, form, form.quote)
    try:
        auto_topping_up.switch_on(
            account=request.account,
            threshold_nanousd=form.cleaned_data["threshold"],
            amount_nanousd=form.cleaned_data["amount"],
            monthly_cap_nanousd=form.cleaned_data["monthly_cap"],
            method=form.cleaned_data["method"],
            actor=request.user,
            at=timezone.now(),
        )
    except auto_topping_up.MethodNotUsable as refused:
        form.add_error("method", str(refused))
        return _page(request, form, auto, status=422)
    messages.success(request, "Auto top-up is on.")
    return redirect("billing:auto_topup")


@require_POST
@acting_account_required
def switch_off(request: AccountRequest) -> HttpResponse:
    """Buy nothing more, at once."""
    auto_topping_up.switch_off(account=request.account, actor=request.user)
    messages.success(request, "Auto top-up is off.")
    return redirect("billing:auto_topup")


def _page(
    request: AccountRequest, form: AutoTopUpForm, auto: AutoTopUp | None, *, status: int
) -> HttpResponse:
    bought = TopUp.objects.filter(account=request.account, origin=TopUp.Origin.AUTOMATIC)
    context = {
        "form": form,
        "auto": auto,
        "method": auto_topping_up.charged_method(account_id=request.account.pk),
        "has_methods": bool(form.fields["method"].choices),  # type: ignore[attr-defined]
        "fee_rate": request.account.plan.topup_fee_rate,
        "charged_nanousd": auto_topping_up.charged_in_month(account_id=request.account.pk, at=timezone.now()),
        "waiting": auto_topping_up.waiting(account_id=request.account.pk),
        "history": bought.select_related("method").order_by("-pk")[:_HISTORY],
    }
    return render(request, "billing/auto_topup.html", context, status=status)


def _confirm(request: AccountRequest, form: AutoTopUpForm, quote: Quote) -> HttpResponse:
    """What each purchase charges, before anybody agrees to it."""
    agreed = {**form.cleaned_data, "quote": quote}
    typed = {
        name: f"{usd_from_nano(form.cleaned_data[name]):.2f}"
        for name in ("threshold", "amount", "monthly_cap")
    }
    typed["method"] = form.cleaned_data["method"].pk
    typed["agreed_total"] = str(quote.total_nanousd // NANO_PER_CENT)
    return render(request, "billing/auto_topup_confirm.html", {"agreed": agreed, "typed": typed})


def _as_typed(auto: AutoTopUp | None) -> dict[str, object]:
    """What the form shows first: what holds now, or what is usual."""
    if auto is None:
        return {"threshold": "10.00", "amount": "20.00", "monthly_cap": "100.00"}
    return {
        "threshold": f"{usd_from_nano(auto.threshold_nanousd):.2f}",
        "amount": f"{usd_from_nano(auto.amount_nanousd):.2f}",
        "monthly_cap": f"{usd_from_nano(auto.monthly_cap_nanousd):.2f}",
    }
