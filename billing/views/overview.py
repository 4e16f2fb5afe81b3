"""What the account has, what it paid, and where every cent went."""

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from accounts.acting import AccountRequest, acting_account_required
from billing import statement
from billing.models import Wallet
from billing.views.paging import older_than, page_or_fragment


@require_safe
@acting_account_required
def home(request: AccountRequest) -> HttpResponse:
    """What the account has, what it paid, and its ledger."""
    wallet = Wallet.objects.filter(account=request.account).first() or Wallet()
    context = {
        "wallet": wallet,
        "unposted_nanousd": statement.credit_in_ledger(account=request.account) - wallet.balance_nanousd,
        "now": timezone.now(),
        "payments": statement.payments(account=request.account),
        "ledger": statement.lines(account=request.account),
    }
    return render(request, "billing/home.html", context)


@require_safe
@acting_account_required
def ledger(request: AccountRequest) -> HttpResponse:
    """The ledger from some line on: a page, or the table alone."""
    lines = statement.lines(account=request.account, older_than=older_than(request))
    return page_or_fragment(request, "billing/ledger.html", "billing/_ledger.html", {"ledger": lines})


@require_safe
@acting_account_required
def payments(request: AccountRequest) -> HttpResponse:
    """The payments from some one on: a page, or the table alone."""
    topups = statement.payments(account=request.account, older_than=older_than(request))
    return page_or_fragment(request, "billing/payments.html", "billing/_payments.html", {"payments": topups})
