"""URLs of the host project."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("realtime/", include("realtime.urls")),
    path("", include("demo.urls")),
]

# With DEBUG on, so that plain daphne serves the demo; without, a web server serves STATIC_ROOT.
urlpatterns += staticfiles_urlpatterns()
