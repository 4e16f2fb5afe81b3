"""The billing pages: what the account has, how it buys more, and where every cent went."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from accounts.acting import AccountRequest, acting_account_required
from billing import budgets, providers, statement, topping_up
from billing.forms import BudgetForm, BuyForm
from billing.models import Budget, TopUp, Wallet
from catalog.money import NANO_PER_CENT, usd_from_nano
from keys.models import ApiKey

PRESETS_USD = (5, 20, 50, 100)


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
    lines = statement.lines(account=request.account, older_than=_older_than(request))
    return _page_or_fragment(request, "billing/ledger.html", "billing/_ledger.html", {"ledger": lines})


@require_safe
@acting_account_required
def payments(request: AccountRequest) -> HttpResponse:
    """The payments from some one on: a page, or the table alone."""
    topups = statement.payments(account=request.account, older_than=_older_than(request))
    return _page_or_fragment(request, "billing/payments.html", "billing/_payments.html", {"payments": topups})


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def buy(request: AccountRequest) -> HttpResponse:
    """Choose an amount, see its fee and total, and go to the payment page.

    Nobody gets there without having seen the total: a form that does not carry the right one is asked again.
    """
    offered = providers.configured()
    if not offered:
        return render(request, "billing/buy_unavailable.html")
    provider, plan = offered[0], request.account.plan
    if request.method != "POST":
        # The second of the usual amounts is where most people end.
        usual = [str(usd) for usd in _presets()[:2]]
        chosen = request.GET.get("credit") or (usual[-1] if usual else "")
        return _buy_page(request, BuyForm({"credit": chosen}, plan=plan))
    form = BuyForm(request.POST, plan=plan)
    if not form.is_valid() or form.quote is None:
        return _buy_page(request, form, status=422)
    if form.cleaned_data["seen_total"] != form.quote.total_nanousd // NANO_PER_CENT:
        context = {"provider": provider, **_as_shown(form.quote)}
        return render(request, "billing/buy_confirm.html", context)
    topup = topping_up.start(
        account=request.account,
        actor=request.user,
        credit_nanousd=form.quote.credit_nanousd,
        provider=provider.slug,
        at=timezone.now(),
    )
    return HttpResponseRedirect(provider.checkout_url(topup=topup))


@require_GET
@acting_account_required
def sandbox_payment(request: AccountRequest, reference: str) -> HttpResponse:
    """The payment page of the sandbox, which takes no money and says so."""
    topup = _sandbox_topup(request, reference)
    if topup.status != TopUp.Status.PENDING:
        return redirect("billing:return", topup.pk)
    return render(request, "billing/sandbox_payment.html", {"topup": topup})


@require_POST
@acting_account_required
def sandbox_pay(request: AccountRequest, reference: str) -> HttpResponse:
    """The sandbox reports a payment, as a real provider would through its webhook."""
    topup = _sandbox_topup(request, reference)
    if topup.status == TopUp.Status.PENDING:
        topping_up.finish(
            provider=topup.provider,
            reference=topup.provider_reference,
            paid_total_nanousd=topup.total_nanousd,
            at=timezone.now(),
        )
    return redirect("billing:return", topup.pk)


@require_POST
@acting_account_required
def sandbox_cancel(request: AccountRequest, reference: str) -> HttpResponse:
    """The buyer turns back on the payment page."""
    topup = _sandbox_topup(request, reference)
    try:
        topping_up.cancel(topup=topup, actor=request.user)
    except topping_up.AlreadyPaid as refused:
        messages.info(request, str(refused))
    return redirect("billing:return", topup.pk)


@require_safe
@acting_account_required
def returned(request: AccountRequest, topup_id: int) -> HttpResponse:
    """Where the payment page sends the buyer back to; it looks again by itself until the payment has arrived."""
    topup = get_object_or_404(TopUp, pk=topup_id, account=request.account)
    return _page_or_fragment(request, "billing/return.html", "billing/_return.html", {"topup": topup})


@require_safe
@acting_account_required
def receipt(request: AccountRequest, topup_id: int) -> HttpResponse:
    """One top-up, with everything that an accountant asks."""
    topup = get_object_or_404(
        TopUp.objects.select_related("created_by"), pk=topup_id, account=request.account
    )
    provider = providers.named(slug=topup.provider)
    context = {
        "topup": topup,
        "provider_name": provider.name if provider else topup.provider,
        "checkout_url": provider.checkout_url(topup=topup) if provider in providers.configured() else "",
    }
    return render(request, "billing/receipt.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def key_budget(request: AccountRequest, key_id: int) -> HttpResponse:
    """Set a key's own spend limit."""
    key = get_object_or_404(ApiKey, pk=key_id, account=request.account)
    budget = Budget.objects.filter(key=key).first()
    if request.method == "POST":
        form = BudgetForm(request.POST)
        if form.is_valid():
            budgets.set_key_budget(
                key=key,
                period=form.cleaned_data["period"],
                limit_nanousd=form.cleaned_data["limit"],
                actor=request.user,
                at=timezone.now(),
            )
            messages.success(request, f"The spend limit of {key.name} holds from now on.")
            return redirect("billing:key_budget", key.pk)
    elif budget:
        limit_usd = usd_from_nano(budget.limit_nanousd)
        form = BudgetForm(initial={"limit": f"{limit_usd:.2f}", "period": budget.period})
    else:
        form = BudgetForm(initial={"period": Budget.Period.MONTH})
    context = {
        "key": key,
        "budget": _counted_now(budget),
        "resets_at": budget and budgets.period_end(period=budget.period, day=timezone.now().date()),
        "form": form,
    }
    return render(request, "billing/key_budget.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@acting_account_required
def clear_key_budget(request: AccountRequest, key_id: int) -> HttpResponse:
    """Take a key's spend limit away, after asking once."""
    key = get_object_or_404(ApiKey, pk=key_id, account=request.account)
    budget = Budget.objects.filter(key=key).first()
    if request.method == "POST":
        budgets.clear_key_budget(key=key, actor=request.user)
        messages.success(request, f"{key.name} has no spend limit of its own any more.")
        return redirect("billing:key_budget", key.pk)
    if budget is None:
        return redirect("billing:key_budget", key.pk)
    return render(request, "billing/key_budget_clear.html", {"key": key, "budget": budget})


def _buy_page(request: AccountRequest, form: BuyForm, *, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        **(_as_shown(form.quote) if form.is_valid() and form.quote else {}),
        "presets": _presets(),
        "fee_rate": request.account.plan.topup_fee_rate,
        "minimum_cents": int(settings.TOPUP_MINIMUM_USD * 100),
        "maximum_cents": int(settings.TOPUP_MAXIMUM_USD * 100),
    }
    return render(request, "billing/buy.html", context, status=status)


def _presets() -> list[int]:
    return [usd for usd in PRESETS_USD if settings.TOPUP_MINIMUM_USD <= usd <= settings.TOPUP_MAXIMUM_USD]


def _as_shown(quote: topping_up.Quote) -> dict[str, Any]:
    """A quote to read, and the fields by which the form says that the buyer has read it."""
    return {
        "quote": quote,
        "fee_percent": f"{(quote.fee_rate * 100).normalize():f}",
        "credit": f"{usd_from_nano(quote.credit_nanousd):.2f}",
        "seen_total": quote.total_nanousd // NANO_PER_CENT,
    }


def _sandbox_topup(request: AccountRequest, reference: str) -> TopUp:
    # Where the operator has switched the sandbox off, an old payment page must not give credit any more.
    if providers.SANDBOX not in providers.configured():
        raise Http404
    return get_object_or_404(
        TopUp, account=request.account, provider=providers.SANDBOX.slug, provider_reference=reference
    )


def _counted_now(budget: Budget | None) -> Budget | None:
    """The budget as it stands at this moment: one whose period is over counts from zero again."""
    if budget is None:
        return None
    start = budgets.period_start(period=budget.period, day=timezone.now().date())
    if start > budget.period_start:
        budget.period_start, budget.spent_nanousd, budget.held_nanousd = start, 0, 0
    return budget


def _older_than(request: HttpRequest) -> int | None:
    given = request.GET.get("older_than", "")
    # More digits than a bigint has are nobody's id.
    return int(given) if given.isascii() and given.isdigit() and len(given) < len(str(2**63)) else None


def _page_or_fragment(
    request: AccountRequest, page: str, fragment: str, context: dict[str, Any]
) -> HttpResponse:
    response = render(request, fragment if request.htmx else page, context)
    patch_vary_headers(response, ["HX-Request"])
    return response
