"""Taking credit out of a wallet, with a reason."""

import uuid

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone

from accounts.models import Account
from billing import adjusting, ledger, moving
from billing.admin import asking
from billing.admin.read_only import usd
from billing.forms import TakeForm
from billing.models import Wallet


def take_credit(request: HttpRequest, account_id: int) -> HttpResponse:
    """Take credit of an account that is available, with a reason that its members read."""
    actor = asking.operator(request, "billing.change_wallet")
    if actor is None:
        raise PermissionDenied
    account = get_object_or_404(Account, pk=account_id)
    wallet = Wallet.objects.filter(account=account).first() or Wallet()
    form = TakeForm(request.POST or None, initial={"token": uuid.uuid4()})
    back = reverse("admin:billing_wallet_changelist")
    if not asking.is_confirmed(request, form):
        named = asking.named(account)
        effect = f"{usd(form.cleaned_data['amount'])} is taken from {named}." if form.is_valid() else ""
        return asking.page(
            request,
            title="Take credit",
            facts=[
                f"From {named}, with {usd(wallet.available_nanousd)} available.",
                "Nobody is paid anything: to give money back, refund a top-up.",
            ],
            effect=effect,
            form=form,
            back=back,
            about=wallet if wallet.pk else Wallet,
        )
    try:
        adjusting.take(
            account=account,
            amount_nanousd=form.cleaned_data["amount"],
            reason=form.cleaned_data["reason"],
            actor=actor,
            at=timezone.now(),
            reference=f"adjust:{form.cleaned_data['token']}",
        )
        messages.success(request, f"{usd(form.cleaned_data['amount'])} taken from {account}.")
    except moving.NotAvailable as refused:
        messages.error(request, f"Nothing was taken. {refused}")
    except ledger.AlreadyPosted:
        messages.info(request, "This form was sent twice; the credit was taken once.")
    return redirect(back)
