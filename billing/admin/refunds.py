"""Refunds: made from a top-up's page, and what became of them."""

import uuid
from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from billing import kept, refunding
from billing.admin import asking, stuck_refunds
from billing.admin.read_only import ReadOnly, usd
from billing.forms import RefundForm
from billing.models import Refund, TopUp
from catalog.money import usd_from_nano

if TYPE_CHECKING:
    RefundModelAdmin = admin.ModelAdmin[Refund]
else:  # Django's classes take no type arguments at run time.
    RefundModelAdmin = admin.ModelAdmin

_PERMISSION = "billing.add_refund"
_SENT_TWICE = "This form was sent twice; the refund was made once."


@admin.register(Refund)
class RefundAdmin(ReadOnly, RefundModelAdmin):
    list_display = ("id", "account", "status", "total", "credit", "loss", "created_at")
    fields = (
        "account",
        "topup",
        "status",
        "message",
        "total",
        "credit",
        "fee",
        "loss",
        "to_take",
        "booked",
        "reason",
        "created_by",
        "reference",
        "provider_refund",
        "created_at",
        "asked_at",
        "looked_up_at",
        "ended_at",
    )
    list_filter = ("status", "topup__provider")
    search_fields = ("account__name", "account__members__email", "reference", "provider_refund")
    list_select_related = ("account",)
    date_hierarchy = "created_at"

    def get_urls(self) -> list[URLPattern]:
        ask, give_up = map(self.admin_site.admin_view, (stuck_refunds.ask_again, stuck_refunds.give_up))
        return [
            path("<int:refund_id>/ask-again/", ask, name="billing_refund_ask_again"),
            path("<int:refund_id>/give-up/", give_up, name="billing_refund_give_up"),
            *super().get_urls(),
        ]

    @admin.display(description="Booked")
    def booked(self, refund: Refund) -> str:
        if refund.moved_nothing:
            return "Never: it had failed at the payment company before it was heard of."
        return "Yes, and back again" if refund.status == Refund.Status.FAILED else "Yes"

    @admin.display(description="Amount")
    def total(self, refund: Refund) -> str:
        return usd(refund.total_nanousd)

    @admin.display(ordering="credit_nanousd", description="Out of the wallet")
    def credit(self, refund: Refund) -> str:
        return "nothing" if refund.moved_nothing else usd(refund.credit_nanousd)

    @admin.display(ordering="fee_nanousd")
    def fee(self, refund: Refund) -> str:
        return "nothing" if refund.moved_nothing else usd(refund.fee_nanousd)

    @admin.display(ordering="loss_nanousd", description="Lost")
    def loss(self, refund: Refund) -> str:
        return "nothing" if refund.moved_nothing else usd(refund.loss_nanousd)

    @admin.display(description="Of that still to take, held by requests")
    def to_take(self, refund: Refund) -> str:
        return usd(refund.to_take_nanousd)


def is_refund_offered(topup: TopUp) -> bool:
    """Something of it has not gone back. How much of that is spent, and so cannot, its page says."""
    return topup.status == TopUp.Status.PAID and kept.of(topup=topup).credit_nanousd > 0


def refund_topup(request: HttpRequest, topup_id: int) -> HttpResponse:
    """Give back unspent credit of a top-up, with a reason that the account reads."""
    actor = asking.operator(request, _PERMISSION)
    if actor is None:
        raise PermissionDenied
    topup = get_object_or_404(TopUp.objects.select_related("account"), pk=topup_id)
    back = reverse("admin:billing_topup_change", args=[topup.pk])
    if Refund.objects.filter(reference=_reference(request.POST.get("token"))).exists():
        messages.info(request, _SENT_TWICE)
        return redirect(back)
    possible = refunding.refundable(topup=topup)
    suggested = {"token": uuid.uuid4(), "credit": f"{usd_from_nano(possible.credit_nanousd):.2f}"}
    form = RefundForm(request.POST or None, initial=suggested, possible=possible)
    if not asking.is_confirmed(request, form):
        paid = f"{usd(topup.total_nanousd)} for {usd(topup.credit_nanousd)} of credit"
        return asking.page(
            request,
            title="Refund",
            facts=[
                f"Paid by {asking.named(topup.account)}: {paid}.",
                f"At most {usd(possible.credit_nanousd)} of it can be given back. {possible.because}",
            ],
            effect=_effect(topup, form),
            form=form,
            back=back,
            about=topup,
        )
    try:
        refund = refunding.start(
            topup=topup,
            credit_nanousd=form.cleaned_data["credit"],
            reason=form.cleaned_data["reason"],
            actor=actor,
            reference=_reference(form.cleaned_data["token"]),
            at=timezone.now(),
        )
    except refunding.NotRefundable as refused:
        messages.error(request, str(refused))
    except refunding.AlreadyAsked:
        messages.info(request, _SENT_TWICE)
    else:
        _tell(request, refunding.ask(refund=refund, at=timezone.now()))
    return redirect(back)


def _reference(token: object) -> str:
    return f"refund-{token}"


def _effect(topup: TopUp, form: RefundForm) -> str:
    if not form.is_valid():
        return ""
    credit_nanousd = form.cleaned_data["credit"]
    fee_nanousd = refunding.fee_for(topup=topup, credit_nanousd=credit_nanousd)
    return (
        f"{usd(credit_nanousd)} of credit is taken out of the wallet, and {usd(credit_nanousd + fee_nanousd)} goes back"
        f" to whoever paid: the credit, and {usd(fee_nanousd)} of the fee. This cannot be undone."
    )


def _tell(request: HttpRequest, refund: Refund) -> None:
    match refund.status:
        case Refund.Status.SUCCEEDED:
            messages.success(request, f"{usd(refund.total_nanousd)} was given back.")
        case Refund.Status.FAILED:
            messages.error(request, f"{refund.message} The credit is back in the wallet.")
        case _:
            messages.info(request, f"{usd(refund.total_nanousd)} is on its way back.")
