"""The HTTP side, for `path("realtime/", include("realtime.urls"))`."""

from __future__ import annotations

from django.urls import path

from realtime import views

app_name = "realtime"

urlpatterns = [
    path("health", views.health, name="health"),
]
