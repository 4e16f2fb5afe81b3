"""What the account has, what it paid, and where every cent went."""

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from accounts.acting import AccountRequest, acting_account_required
from billing import statement
from billing.forms import LedgerFilterForm
from billing.keyset import older_than
from billing.models import Wallet
from billing.views.paging import page_or_fragment


@require_safe
@acting_account_required
def home(request: AccountRequest) -> HttpResponse:
    """What the account has, what it paid, and its ledger."""
    wallet = Wallet.objects.filter(account=request.account).first() or Wallet()
    lines = statement.lines(account=request.account)
    in_ledger_nanousd = lines.rows[0].balance_nanousd if lines.rows else 0
    context = {
        "wallet": wallet,
        "unposted_nanousd": in_ledger_nanousd - wallet.balance_nanousd,
        "pending_nanousd": statement.pending_nanousd(account=request.account),
        "now": timezone.now(),
        "payments": statement.payments(account=request.account),
        "ledger": lines,
    }
    return render(request, "billing/home.html", context)


@require_safe
@acting_account_required
def ledger(request: AccountRequest) -> HttpResponse:
    """The ledger from some line on, of one kind or of all: a page, or the table alone."""
    form = LedgerFilterForm(request.GET)
    lines = statement.lines(account=request.account, kind=form.chosen, older_than=older_than(request))
    context = {"ledger": lines, "form": form}
    return page_or_fragment(request, "billing/ledger.html", "billing/_ledger.html", context)


@require_safe
@acting_account_required
def ledger_file(request: AccountRequest) -> HttpResponse:
    """The whole ledger, of one kind or of all, as a CSV file."""
    content = statement.lines_csv(account=request.account, kind=LedgerFilterForm(request.GET).chosen)
    return HttpResponse(
        content,
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="ledger-{timezone.now():%Y-%m-%d}.csv"',
            "Cache-Control": "private, no-store",
        },
    )


@require_safe
@acting_account_required
def payments(request: AccountRequest) -> HttpResponse:
    """The payments from some one on: a page, or the table alone."""
    topups = statement.payments(account=request.account, older_than=older_than(request))
    return page_or_fragment(request, "billing/payments.html", "billing/_payments.html", {"payments": topups})
