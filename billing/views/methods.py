"""The payment methods that an account has left with a provider."""

import logging

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.acting import AccountRequest, acting_account_required
from billing import payment_methods
from billing.models import SavedPaymentMethod
from billing.providers.provider import ProviderAway, ProviderRefused

logger = logging.getLogger(__name__)


@require_safe
@acting_account_required
def method_list(request: AccountRequest) -> HttpResponse:
    """What is saved, and which of it auto top-up charges."""
    methods = SavedPaymentMethod.objects.filter(account=request.account, removed_at=None)
    context = {"methods": methods.order_by("-is_default", "-id"), "today": timezone.now().date()}
    return render(request, "billing/methods.html", context)


@require_POST
@acting_account_required
def make_default(request: AccountRequest, method_id: int) -> HttpResponse:
    """Let auto top-up charge this one."""
    method = _own(request, method_id)
    payment_methods.make_default(method=method, actor=request.user)
    messages.success(request, f"Auto top-up uses {method} from now on.")
    return redirect("billing:methods")


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def remove(request: AccountRequest, method_id: int) -> HttpResponse:
    """Remove one, after asking once."""
    method = _own(request, method_id)
    if request.method != "POST":
        return render(request, "billing/method_remove.html", {"method": method})
    payment_methods.remove(method=method, actor=request.user, at=timezone.now())
    try:
        payment_methods.forget(method=method, at=timezone.now())
    except (ProviderAway, ProviderRefused) as problem:
        # It is charged no more, and a task asks the provider again.
        logger.warning("%s has not forgotten %s: %s", method.provider, method, problem)
    messages.success(request, f"{method} is removed, and is not charged again.")
    return redirect("billing:methods")


def _own(request: AccountRequest, method_id: int) -> SavedPaymentMethod:
    return get_object_or_404(SavedPaymentMethod, pk=method_id, account=request.account, removed_at=None)
