"""Every address of the console. /v1/* never comes here: see config/asgi.py."""

from django.contrib import admin
from django.urls import include, path

from config import celery, health, key_pages, views
from usage.views import budgets

# Views enqueue tasks: Celery must know by then where the queue is.
celery.app.set_default()

urlpatterns = [
    path("", views.home, name="home"),
    path("overview/", views.overview, name="overview"),
    path("overview/first-call/", views.first_call, name="first_call"),
    path("keys/", key_pages.key_list, name="key_list"),
    path("keys/<int:key_id>/", key_pages.key_detail, name="key_detail"),
    path("keys/", include("keys.urls")),
    path("billing/budgets/", budgets.budget_list, name="budget_list"),
    path("billing/budgets/add/", budgets.budget_add, name="budget_add"),
    path("billing/budgets/<int:budget_id>/", budgets.budget_change, name="budget_change"),
    path("billing/budgets/<int:budget_id>/remove/", budgets.budget_remove, name="budget_remove"),
    path("billing/", include("billing.urls")),
    path("usage/", include("usage.urls")),
    path("models/", include("catalog.urls")),
    path("settings/", include("accounts.urls")),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
    path("docs/", views.docs, name="docs"),
    path("outbox/", views.outbox, name="outbox"),
    path("health/live", health.live, name="live"),
    path("health/ready", health.ready, name="ready"),
]
