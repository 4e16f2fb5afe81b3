"""The payment page of the sandbox provider, which takes no money and says so."""

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from accounts.acting import AccountRequest, acting_account_required
from billing import crediting, topping_up
from billing.models import TopUp
from billing.providers import offering
from billing.providers.sandbox import CARD, DECLINED_CARD, SANDBOX, is_page_open, payment_of


@require_GET
@acting_account_required
def sandbox_payment(request: AccountRequest, reference: str) -> HttpResponse:
    """The payment page of the sandbox, which takes no money and says so."""
    topup = _sandbox_topup(request, reference)
    if not is_page_open(topup=topup):
        return redirect("billing:return", topup.pk)
    return render(request, "billing/sandbox_payment.html", {"topup": topup, "cards": [CARD, DECLINED_CARD]})


@require_POST
@acting_account_required
def sandbox_pay(request: AccountRequest, reference: str) -> HttpResponse:
    """The sandbox reports a payment, as a real provider would through its webhook."""
    topup = _sandbox_topup(request, reference)
    if is_page_open(topup=topup):
        card = DECLINED_CARD if request.POST.get("card") == DECLINED_CARD.method else CARD
        try:
            topping_up.take(
                provider=topup.provider, payment=payment_of(topup=topup, method=card), at=timezone.now()
            )
        except crediting.WalletFull as full:
            messages.error(request, str(full))
    return redirect("billing:return", topup.pk)


@require_POST
@acting_account_required
def sandbox_cancel(request: AccountRequest, reference: str) -> HttpResponse:
    """The buyer turns back on the payment page."""
    topup = _sandbox_topup(request, reference)
    try:
        topping_up.cancel(topup=topup, actor=request.user)
    except topping_up.AlreadyPaid as refused:
        messages.info(request, str(refused))
    return redirect("billing:return", topup.pk)


def _sandbox_topup(request: AccountRequest, reference: str) -> TopUp:
    # Where the operator has switched the sandbox off, an old payment page must not give credit any more.
    if SANDBOX not in offering.configured():
        raise Http404
    return get_object_or_404(
        TopUp, account=request.account, provider=SANDBOX.slug, provider_reference=reference
    )
