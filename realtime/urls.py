"""The HTTP side, for `path("realtime/", include("realtime.urls"))`."""

from __future__ import annotations

from django.urls import path, re_path

from realtime.http import broadcast, health

app_name = "realtime"

urlpatterns = [
    path("health", health.health, name="health"),
    # The official clients speak to /realtime/v1, as behind Supabase's gateway.
    re_path(r"^(?:v1/)?api/broadcast/?$", broadcast.batch, name="broadcast"),
    re_path(
        r"^(?:v1/)?api/broadcast/(?P<topic>.+)/events/(?P<event>.+)$",
        broadcast.single,
        name="broadcast-event",
    ),
    path("metrics", health.metrics, name="metrics"),
]
