"""What an operator does about a refund that stays on its way."""

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone

from billing import pending_refunds
from billing.admin import asking
from billing.admin.read_only import usd
from billing.models import Refund

_PERMISSION = "billing.add_refund"


def ask_again(request: HttpRequest, refund_id: int) -> HttpResponse:
    """Ask the payment company what became of a refund, and for the refund where it knows nothing of it."""
    actor = asking.operator(request, _PERMISSION)
    if actor is None:
        raise PermissionDenied
    refund = get_object_or_404(Refund.objects.select_related("topup", "account"), pk=refund_id)
    if refund.status == Refund.Status.PENDING and not _is_confirmed(request):
        return _page(
            request,
            refund,
            title="Ask again",
            effect=(
                "The payment company is asked what became of it. If it knows nothing of it, it is asked for the refund"
                f" again, and {usd(refund.total_nanousd)} goes back to whoever paid. Do not do this if you have given"
                " the money back in another way."
            ),
        )
    if refund.status == Refund.Status.PENDING:
        refund = pending_refunds.ask_again(refund=refund, actor=actor, at=timezone.now())
    return _told(request, refund)


def give_up(request: HttpRequest, refund_id: int) -> HttpResponse:
    """Give the credit of a refund back that was not made, if the payment company says so too."""
    actor = asking.operator(request, _PERMISSION)
    if actor is None:
        raise PermissionDenied
    refund = get_object_or_404(Refund.objects.select_related("topup", "account"), pk=refund_id)
    if refund.status == Refund.Status.PENDING and not _is_confirmed(request):
        return _page(
            request,
            refund,
            title="Give the credit back",
            effect=(
                "The payment company is asked what became of it. Only if it knows nothing of it, the refund has failed,"
                f" and {usd(refund.credit_nanousd)} of credit is in the wallet again."
            ),
        )
    if refund.status == Refund.Status.PENDING:
        try:
            refund = pending_refunds.give_up(refund=refund, actor=actor, at=timezone.now())
        except pending_refunds.NotGivenUp as refused:
            messages.error(request, str(refused))
            return redirect("admin:billing_refund_change", refund.pk)
    return _told(request, refund)


def _is_confirmed(request: HttpRequest) -> bool:
    return request.method == "POST" and asking.is_confirmed(request, forms.Form(request.POST))


def _page(request: HttpRequest, refund: Refund, *, title: str, effect: str) -> HttpResponse:
    what = f"The refund of {usd(refund.total_nanousd)} to {asking.named(refund.account)}"
    known = (
        f"The payment company has it as {refund.provider_refund}."
        if refund.provider_refund
        else "The payment company has not said that it has made it."
    )
    return asking.page(
        request,
        title=title,
        facts=[f"{what} was begun at {refund.created_at:%Y-%m-%d %H:%M} UTC and is on its way.", known],
        effect=effect,
        form=forms.Form({}),
        back=reverse("admin:billing_refund_change", args=[refund.pk]),
        about=refund,
    )


def _told(request: HttpRequest, refund: Refund) -> HttpResponse:
    level = messages.INFO if refund.status == Refund.Status.PENDING else messages.SUCCESS
    messages.add_message(
        request, level, f"The refund is: {refund.get_status_display()}. {refund.message}".strip()
    )
    return redirect("admin:billing_refund_change", refund.pk)
