"""The pages below /usage/. Each starts from the account that its reader acts for."""

import uuid

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_POST, require_safe

from accounts.acting import AccountRequest, acting_account_required
from usage import anomalies, exporting, queries, refusals, request_log
from usage.forms import DIMENSIONS, METRICS, RequestFilterForm, SelectionForm
from usage.models import Anomaly, UsageRecord


@require_safe
@acting_account_required
def overview(request: AccountRequest) -> HttpResponse:
    """The chart, its tables and its totals."""
    form = SelectionForm(request.GET, account=request.account)
    selection = form.selection(at=timezone.now())
    report = queries.report(
        account=request.account,
        start=selection.start,
        end=selection.end,
        by=selection.by,
        step=selection.step,
        metric=selection.metric,
        **selection.filters,
    )
    context = {
        "form": form,
        "selection": selection,
        "report": report,
        "by_label": dict(DIMENSIONS)[selection.by],
        "chart_label": f"{dict(METRICS)[report.series.metric]} by {dict(DIMENSIONS)[selection.by].lower()}",
        "export_query": form.query(),
    }
    return _page_or_fragment(request, "usage/overview.html", "usage/_report.html", context)


@require_safe
@acting_account_required
def export(request: AccountRequest) -> HttpResponse:
    """The selection of the page as a CSV file."""
    selection = SelectionForm(request.GET, account=request.account).selection(at=timezone.now())
    content = exporting.usage_csv(
        account=request.account,
        start=selection.start,
        end=selection.end,
        step=selection.step,
        **selection.filters,
    )
    name = f"usage-{selection.start:%Y-%m-%d}-{selection.step}s.csv"
    return HttpResponse(
        content,
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "private, no-store",
        },
    )


@require_safe
@acting_account_required
def request_list(request: AccountRequest) -> HttpResponse:
    """The request log."""
    form = RequestFilterForm(request.GET, account=request.account)
    page = request_log.page(
        account=request.account,
        filters=form.filters(),
        older_than=_uuid(request.GET.get("older_than", "")),
        newer_than=_uuid(request.GET.get("newer_than", "")),
    )
    context = {
        "form": form,
        "page": page,
        "newer_href": page.newer_than and f"?{form.query(newer_than=str(page.newer_than))}",
        "older_href": page.older_than and f"?{form.query(older_than=str(page.older_than))}",
        "is_filtered": bool(form.filters()),
        "has_called": bool(page.records) or queries.has_called(account=request.account),
    }
    return _page_or_fragment(request, "usage/requests.html", "usage/_request_table.html", context)


@require_safe
@acting_account_required
def request_detail(request: AccountRequest, record_id: uuid.UUID) -> HttpResponse:
    """One request's receipt."""
    records = UsageRecord.objects.filter(account=request.account).select_related("key", "model")
    record = get_object_or_404(records, pk=record_id)
    context = {
        "record": record,
        "uncached_input_tokens": record.input_tokens - record.cached_input_tokens - record.cache_write_tokens,
        "way_out": refusals.way_out(record=record),
    }
    return render(request, "usage/request.html", context)


@require_safe
@acting_account_required
def alerts(request: AccountRequest) -> HttpResponse:
    """Spikes: those that nobody has acknowledged, then the latest others."""
    known = Anomaly.objects.filter(account=request.account).select_related("key", "model")
    context = {
        "open_alerts": queries.open_anomalies(account=request.account),
        "closed_alerts": known.exclude(acknowledged_at=None)[:50],
    }
    return render(request, "usage/alerts.html", context)


@require_POST
@acting_account_required
def acknowledge(request: AccountRequest, anomaly_id: int) -> HttpResponse:
    """Somebody has seen the alert."""
    anomaly = get_object_or_404(Anomaly, account=request.account, pk=anomaly_id)
    anomalies.acknowledge(anomaly=anomaly, actor=request.user, at=timezone.now())
    messages.success(request, "Acknowledged. A new spike makes a new alert.")
    return redirect("usage:alerts")


def _page_or_fragment(
    request: AccountRequest, page: str, fragment: str, context: dict[str, object]
) -> HttpResponse:
    # A step back in the browser's history asks through htmx for the whole page.
    is_fragment = request.htmx and not request.htmx.history_restore_request
    response = render(request, fragment if is_fragment else page, context)
    patch_vary_headers(response, ["HX-Request"])
    return response


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
