"""Giving an account credit that nobody paid for, with a reason."""

import uuid

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone

from accounts.models import Account, User
from billing import crediting, ledger
from billing.admin import asking
from billing.admin.read_only import usd
from billing.forms import GrantForm
from billing.models import Wallet


def grant_credit(request: HttpRequest, account_id: int) -> HttpResponse:
    """Give an account credit that nobody paid for, with a reason that its members read."""
    actor = asking.operator(request, "billing.change_wallet")
    if actor is None:
        raise PermissionDenied
    account = get_object_or_404(Account.objects.select_related("plan"), pk=account_id)
    wallet = Wallet.objects.filter(account=account).first() or Wallet()
    form = GrantForm(request.POST or None, initial={"token": uuid.uuid4()})
    if asking.is_confirmed(request, form) and _is_granted(request, actor, form, account):
        return redirect("admin:billing_wallet_change", account.pk)
    return asking.page(
        request,
        title="Grant credit",
        facts=[
            f"To {asking.named(account)}, with {usd(wallet.available_nanousd)} available.",
            f"It is on the plan {account.plan}. The credit can be spent at once, and no fee is taken.",
        ],
        effect=_effect(account, wallet, form),
        form=form,
        back=reverse("admin:billing_wallet_changelist"),
        about=wallet if wallet.pk else Wallet,
    )


def _is_granted(request: HttpRequest, actor: User, form: GrantForm, account: Account) -> bool:
    """Whether it is granted now; else the form says what is in the way."""
    try:
        crediting.grant(
            account=account,
            amount_nanousd=form.cleaned_data["amount"],
            reason=form.cleaned_data["reason"],
            actor=actor,
            at=timezone.now(),
            reference=f"grant:{form.cleaned_data['token']}",
            expires_at=form.expires_at,
        )
        messages.success(request, f"{usd(form.cleaned_data['amount'])} granted to {account}.")
    except ledger.AlreadyPosted:
        messages.info(request, "This form was sent twice; the credit was granted once.")
    except crediting.WalletFull as full:
        form.add_error("amount", str(full))
        return False
    return True


def _effect(account: Account, wallet: Wallet, form: GrantForm) -> str:
    """What confirming does; empty where it cannot be done, and the form then says why."""
    if not form.is_valid():
        return ""
    try:
        crediting.refuse_overfull(
            balance_nanousd=wallet.balance_nanousd, amount_nanousd=form.cleaned_data["amount"]
        )
    except crediting.WalletFull as full:
        form.add_error("amount", str(full))
        return ""
    until = (
        f" What is not spent by the end of {form.cleaned_data['last_day']} expires."
        if form.expires_at
        else ""
    )
    return f"{usd(form.cleaned_data['amount'])} is granted to {asking.named(account)}.{until}"
