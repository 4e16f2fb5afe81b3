from django.urls import path

from keys import views

app_name = "keys"
urlpatterns = [
    path("create/", views.create, name="create"),
    path("<int:key_id>/rotate/", views.rotate, name="rotate"),
    path("<int:key_id>/policy/", views.policy, name="policy"),
    path("<int:key_id>/disable/", views.disable, name="disable"),
    path("<int:key_id>/enable/", views.enable, name="enable"),
    path("<int:key_id>/revoke/", views.revoke, name="revoke"),
]
