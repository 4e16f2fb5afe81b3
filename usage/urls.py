from django.urls import path

from usage import views

app_name = "usage"
urlpatterns = [
    path("", views.overview, name="overview"),
    path("usage.csv", views.export, name="export"),
    path("requests/", views.request_list, name="requests"),
    path("requests/<uuid:record_id>/", views.request_detail, name="request"),
    path("alerts/", views.alerts, name="alerts"),
    path("alerts/<int:anomaly_id>/acknowledge/", views.acknowledge, name="acknowledge"),
]
