"""Who the account is on paper."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from accounts.acting import AccountRequest, acting_account_required
from billing import billing_details
from billing.forms import BillingDetailsForm
from billing.models import BillingDetails


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def details(request: AccountRequest) -> HttpResponse:
    """Company, address and tax id for receipts; whoever may not change them reads them."""
    may_change = billing_details.may_change(account=request.account, user=request.user)
    entered = BillingDetails.objects.filter(account=request.account).first()
    form = BillingDetailsForm(request.POST or None, instance=entered)
    if request.method == "POST":
        if not may_change:
            raise PermissionDenied("Only owners and admins of an account may change its billing details.")
        if form.is_valid():
            billing_details.change(account=request.account, actor=request.user, entered=form.cleaned_data)
            messages.success(request, "Receipts of payments from now on carry these details.")
            return redirect("billing:details")
    context = {"form": form, "may_change": may_change}
    return render(request, "billing/details.html", context, status=422 if form.errors else 200)
