"""The HTTP side, for `path("realtime/", include("realtime.urls"))`."""

from __future__ import annotations

from django.urls import path, re_path

from realtime import broadcast_views, views

app_name = "realtime"

urlpatterns = [
    path("health", views.health, name="health"),
    # The official clients speak to /realtime/v1, as behind Supabase's gateway.
    re_path(r"^(?:v1/)?api/broadcast/?$", broadcast_views.batch, name="broadcast"),
    re_path(
        r"^(?:v1/)?api/broadcast/(?P<topic>.+)/events/(?P<event>.+)$",
        broadcast_views.single,
        name="broadcast-event",
    ),
    path("metrics", views.metrics, name="metrics"),
]
