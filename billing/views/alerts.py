"""When an account wants to hear that its credit runs low."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from accounts.acting import AccountRequest, acting_account_required
from billing import low_balance
from billing.forms import BalanceAlertForm
from billing.models import BalanceAlert, Wallet
from catalog.money import usd_from_nano


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def alerts(request: AccountRequest) -> HttpResponse:
    """The low-balance e-mail: whether, and from which balance on."""
    alert = BalanceAlert.objects.filter(account=request.account).first() or BalanceAlert()
    initial = {"is_on": alert.is_on, "threshold": f"{usd_from_nano(alert.threshold_nanousd):.2f}"}
    form = BalanceAlertForm(request.POST or None, initial=initial)
    if form.is_valid():
        low_balance.choose(
            account=request.account,
            is_on=form.cleaned_data["is_on"],
            threshold_nanousd=form.cleaned_data["threshold"],
            actor=request.user,
            at=timezone.now(),
        )
        messages.success(request, "Saved.")
        return redirect("billing:alerts")
    context = {
        "form": form,
        "alert": alert,
        "wallet": Wallet.objects.filter(account=request.account).first() or Wallet(),
    }
    return render(request, "billing/alerts.html", context, status=422 if form.errors else 200)
