"""Addresses below /billing/."""

from django.urls import path

from billing.views import (
    alerts,
    auto_topups,
    buying,
    details,
    methods,
    overview,
    receipts,
    sandbox,
    webhooks,
)

app_name = "billing"
urlpatterns = [
    path("", overview.home, name="home"),
    path("ledger/", overview.ledger, name="ledger"),
    path("ledger.csv", overview.ledger_file, name="ledger_file"),
    path("payments/", overview.payments, name="payments"),
    path("details/", details.details, name="details"),
    path("alerts/", alerts.alerts, name="alerts"),
    path("auto-top-up/", auto_topups.auto_topup, name="auto_topup"),
    path("auto-top-up/off/", auto_topups.switch_off, name="auto_topup_off"),
    path("buy/", buying.buy, name="buy"),
    path("webhooks/<slug:provider>/", webhooks.webhook, name="webhook"),
    path("methods/", methods.method_list, name="methods"),
    path("methods/<int:method_id>/default/", methods.make_default, name="make_default_method"),
    path("methods/<int:method_id>/remove/", methods.remove, name="remove_method"),
    path("sandbox/<slug:reference>/", sandbox.sandbox_payment, name="sandbox_payment"),
    path("sandbox/<slug:reference>/pay/", sandbox.sandbox_pay, name="sandbox_pay"),
    path("sandbox/<slug:reference>/cancel/", sandbox.sandbox_cancel, name="sandbox_cancel"),
    path("topups/<int:topup_id>/", receipts.receipt, name="receipt"),
    path("topups/<int:topup_id>/receipt.pdf", receipts.receipt_file, name="receipt_file"),
    path("topups/<int:topup_id>/pay/", buying.pay, name="pay"),
    path("topups/<int:topup_id>/return/", buying.returned, name="return"),
]
