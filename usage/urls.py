from django.urls import path

from usage.views import usage

app_name = "usage"
urlpatterns = [
    path("", usage.overview, name="overview"),
    path("usage.csv", usage.export, name="export"),
    path("requests/", usage.request_list, name="requests"),
    path("requests/<uuid:record_id>/", usage.request_detail, name="request"),
    path("alerts/", usage.alerts, name="alerts"),
    path("alerts/<int:anomaly_id>/acknowledge/", usage.acknowledge, name="acknowledge"),
]
