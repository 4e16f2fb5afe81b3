"""Addresses below /billing/."""

from django.urls import path

from billing import views

app_name = "billing"
urlpatterns = [
    path("", views.home, name="home"),
    path("ledger/", views.ledger, name="ledger"),
    path("payments/", views.payments, name="payments"),
    path("buy/", views.buy, name="buy"),
    path("sandbox/<slug:reference>/", views.sandbox_payment, name="sandbox_payment"),
    path("sandbox/<slug:reference>/pay/", views.sandbox_pay, name="sandbox_pay"),
    path("sandbox/<slug:reference>/cancel/", views.sandbox_cancel, name="sandbox_cancel"),
    path("topups/<int:topup_id>/", views.receipt, name="receipt"),
    path("topups/<int:topup_id>/return/", views.returned, name="return"),
    path("budgets/<int:key_id>/", views.key_budget, name="key_budget"),
    path("budgets/<int:key_id>/clear/", views.clear_key_budget, name="clear_key_budget"),
]
