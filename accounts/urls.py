"""Addresses below /settings/."""

from django.urls import path

from accounts import views

app_name = "accounts"
urlpatterns = [
    path("", views.settings, name="settings"),
    path("audit/", views.audit_log, name="audit_log"),
]
