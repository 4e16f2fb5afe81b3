"""The paper for an accountant: one payment with everything on it."""

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from accounts.acting import AccountRequest, acting_account_required
from billing.models import TopUp
from billing.providers import offering
from billing.providers.sandbox import SANDBOX


@require_safe
@acting_account_required
def receipt(request: AccountRequest, topup_id: int) -> HttpResponse:
    """One top-up, with everything that an accountant asks."""
    topup = get_object_or_404(
        TopUp.objects.select_related("created_by"), pk=topup_id, account=request.account
    )
    provider = offering.named(slug=topup.provider)
    context = {
        "topup": topup,
        "provider_name": provider.name if provider else topup.provider,
        "checkout_url": reverse("billing:sandbox_payment", args=[topup.provider_reference])
        if provider is SANDBOX and provider in offering.configured()
        else "",
    }
    return render(request, "billing/receipt.html", context)
