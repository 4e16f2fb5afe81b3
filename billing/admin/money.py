"""The operator's pages of money: an account at a glance, what was earned by month, and every loss."""

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from accounts.models import Account
from billing import promotions, revenue, statement
from billing.admin.refunds import is_refund_offered
from billing.keyset import older_than
from billing.models import Dispute, Refund, Wallet

_SHOWN = 10


@require_safe
def account_money(request: HttpRequest, account_id: int) -> HttpResponse:
    """One account: what it has and where that came from, its payments, what moved last, and every act on it."""
    _require_view(request)
    account = get_object_or_404(Account.objects.select_related("plan"), pk=account_id)
    wallet = Wallet.objects.filter(account=account).first() or Wallet()
    lines = statement.lines(account=account, limit=_SHOWN)
    in_ledger_nanousd = lines.rows[0].balance_nanousd if lines.rows else 0
    topups = statement.payments(account=account, limit=_SHOWN).rows
    context = {
        **admin.site.each_context(request),
        "title": f"Money of {account}",
        "subject": account,
        "wallet": wallet,
        "standing": promotions.standing(account_id=account.pk),
        "unposted_nanousd": in_ledger_nanousd - wallet.balance_nanousd,
        "pending_nanousd": statement.pending_nanousd(account=account),
        "topups": topups,
        "refundable": {topup.pk for topup in topups if is_refund_offered(topup)},
        "refunds": Refund.objects.filter(account=account)[:_SHOWN],
        "disputes": Dispute.objects.filter(account=account)[:_SHOWN],
        "lines": lines.rows,
        "now": timezone.now(),
    }
    return render(request, "admin/billing/money/account.html", context)


@require_safe
def revenue_by_month(request: HttpRequest) -> HttpResponse:
    """Revenue, fees, and what was given away or lost: the last twelve months as a chart and a table."""
    _require_view(request)
    months = revenue.by_month(at=timezone.now())
    context = {
        **admin.site.each_context(request),
        "title": "Revenue by month",
        "months": months[::-1],
        "total": revenue.total(months),
        "chart": revenue.as_chart(months),
    }
    return render(request, "admin/billing/money/revenue.html", context)


@require_safe
def revenue_file(request: HttpRequest) -> HttpResponse:
    """Every month since the first posting, as CSV."""
    _require_view(request)
    now = timezone.now()
    return HttpResponse(
        revenue.months_csv(revenue.by_month(at=now, months=None)),
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="revenue-{now:%Y-%m-%d}.csv"',
            "Cache-Control": "private, no-store",
        },
    )


@require_safe
def losses(request: HttpRequest) -> HttpResponse:
    """What was used, refunded or disputed and can be charged to nobody: by month, and one by one."""
    _require_view(request)
    shown, goes_on = revenue.losses(older_than=older_than(request))
    context = {
        **admin.site.each_context(request),
        "title": "Platform losses",
        "months": revenue.by_month(at=timezone.now())[::-1],
        "losses": shown,
        "older_than": goes_on,
    }
    return render(request, "admin/billing/money/losses.html", context)


def _require_view(request: HttpRequest) -> None:
    if not request.user.has_perm("billing.view_ledgertransaction"):
        raise PermissionDenied
