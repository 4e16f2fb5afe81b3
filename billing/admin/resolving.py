"""What becomes of a payment that fits no top-up: credited to an account, or closed with a note."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from billing import crediting, told_early, topping_up, unmatched, webhooks
from billing.admin import asking
from billing.admin.closing import in_words
from billing.admin.read_only import usd
from billing.forms import ResolveForm
from billing.models import TopUp, UnmatchedPayment


def resolve_payment(request: HttpRequest, payment_id: int) -> HttpResponse:
    """Credit the payment to an account, or close it with a note."""
    actor = asking.operator(request, "billing.change_unmatchedpayment")
    if actor is None:
        raise PermissionDenied
    payment = get_object_or_404(UnmatchedPayment, pk=payment_id)
    form = ResolveForm(request.POST or None)
    effect = _effect(payment, form)
    if effect and asking.is_confirmed(request, form) and _is_resolved(request, actor, form, payment):
        return redirect("admin:billing_unmatchedpayment_change", payment.pk)
    return asking.page(
        request,
        title="Credit or close a payment",
        facts=_facts(payment),
        effect=effect if form.is_valid() else "",
        form=form,
        back=reverse("admin:billing_unmatchedpayment_changelist"),
        about=payment,
    )


def _facts(payment: UnmatchedPayment) -> list[str]:
    facts = [
        f"{payment.amount} came through {payment.provider} as {payment.payment}, and was not credited: {payment.why}."
    ]
    named = TopUp.objects.select_related("account").filter(
        provider=payment.provider, provider_reference=payment.reference
    )
    if payment.reference and (topup := named.first()):
        facts.append(
            f"It names top-up {topup.pk} of {asking.named(topup.account)}, which costs {usd(topup.total_nanousd)}"
            f" and is: {topup.get_status_display()}."
        )
    events = list(told_early.events(provider=payment.provider, payment=payment.payment))
    if events:
        facts.append(
            "Money of it may have gone back already. Told of it, and waiting for the payment to be credited:"
            f" {'; '.join(map(in_words, events))}. Once it is credited, this is booked at once, and takes credit away."
        )
    closed = list(told_early.closed(provider=payment.provider, payment=payment.payment))
    if closed:
        facts.append(
            f"Told of it as well, and closed by hand: {'; '.join(map(in_words, closed))}."
            " None of this is booked if the payment is credited."
        )
    facts.append(
        "If it is credited and pays no waiting top-up of the account to the cent, a new top-up is made of it: the fee"
        " of the account's plan is taken out of the amount. To give the money back, do so at"
        f" {payment.provider}, and close it here with a note."
    )
    return facts


def _effect(payment: UnmatchedPayment, form: ResolveForm) -> str:
    """What confirming does; empty where it cannot be done, and the form then says why."""
    if not form.is_valid():
        return ""
    account = form.cleaned_data["account"]
    if account is None:
        return "It is closed with this note. No money is moved here."
    try:
        topup = unmatched.foreseen(unmatched=payment, account=account)
    except unmatched.CannotBeCredited as refused:
        form.add_error("account", str(refused))
        return ""
    through = f"It pays top-up {topup.pk}" if topup.pk else "A new top-up is made of it"
    return (
        f"{usd(topup.credit_nanousd)} of credit goes to {asking.named(account)}."
        f" {through}: {usd(topup.total_nanousd)}, of which {usd(topup.fee_nanousd)} is the fee."
    )


def _is_resolved(request: HttpRequest, actor: User, form: ResolveForm, payment: UnmatchedPayment) -> bool:
    """Whether it is resolved now; else the form says what is in the way."""
    account, note = form.cleaned_data["account"], form.cleaned_data["note"]
    try:
        if account is None:
            unmatched.resolve(unmatched=payment, actor=actor, text=note, at=timezone.now())
            messages.success(request, "Closed. No money was moved here.")
        else:
            topup = unmatched.credit(
                unmatched=payment, account=account, actor=actor, text=note, at=timezone.now()
            )
            messages.success(request, f"{usd(topup.credit_nanousd)} credited to {account}.")
            webhooks.process_told_early(provider=payment.provider, payment=payment.payment, at=timezone.now())
    except unmatched.AlreadyResolved:
        messages.info(request, "Somebody has resolved this payment already.")
    except (unmatched.CannotBeCredited, topping_up.PaidOtherwise, crediting.WalletFull) as refused:
        form.add_error("account", str(refused))
        return False
    return True
