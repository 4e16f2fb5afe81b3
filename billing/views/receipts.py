"""The paper for an accountant: one payment with everything on it."""

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from accounts.acting import AccountRequest, acting_account_required
from billing import receipt_pdf
from billing.models import Dispute, Receipt, Refund, TopUp
from billing.providers import offering
from billing.providers.provider import PaymentProvider
from billing.providers.sandbox import SANDBOX


@require_safe
@acting_account_required
def receipt(request: AccountRequest, topup_id: int) -> HttpResponse:
    """One top-up, with everything that an accountant asks."""
    topup = get_object_or_404(
        TopUp.objects.select_related("created_by", "receipt"), pk=topup_id, account=request.account
    )
    provider = offering.named(slug=topup.provider)
    refunds = list(Refund.objects.filter(topup=topup).order_by("pk"))
    disputes = list(Dispute.objects.filter(topup=topup).order_by("pk"))
    context = {
        "topup": topup,
        "receipt": getattr(topup, "receipt", None),
        "refunds": refunds,
        "disputes": disputes,
        "given_back_nanousd": sum(
            refund.total_nanousd for refund in refunds if refund.status == Refund.Status.SUCCEEDED
        ),
        "taken_back_nanousd": sum(
            dispute.amount_nanousd for dispute in disputes if dispute.status == Dispute.Status.LOST
        ),
        "provider_name": provider.name if provider else topup.provider,
        "checkout_url": _where_to_pay(topup, provider),
    }
    return render(request, "billing/receipt.html", context)


@require_safe
@acting_account_required
def receipt_file(request: AccountRequest, topup_id: int) -> HttpResponse:
    """The receipt as a PDF, with what was given back or taken back until now."""
    issued = get_object_or_404(
        Receipt.objects.select_related("topup"), topup_id=topup_id, account=request.account
    )
    return HttpResponse(
        receipt_pdf.render(receipt=issued),
        content_type="application/pdf",
        headers={"Content-Disposition": f'attachment; filename="{receipt_pdf.file_name(issued)}"'},
    )


def _where_to_pay(topup: TopUp, provider: PaymentProvider | None) -> str:
    """The way to the payment page; empty where there is none, or its provider is not offered any more."""
    if provider not in offering.configured():
        return ""
    if provider is SANDBOX:
        return reverse("billing:sandbox_payment", args=[topup.provider_reference])
    return reverse("billing:pay", args=[topup.pk]) if topup.checkout_url else ""
