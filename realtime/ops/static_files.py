"""Whether anything serves the browser's modules where the application itself is asked for them.

`runserver` serves static files, also that of daphne. uvicorn, and daphne as a program, hand every
request to the application, and no check can know which of them will run it. So the first request
for a module of Rowcast that reaches Django, where nothing serves it, is a line in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.signals import request_started
from django.urls import resolve

_logger = logging.getLogger(__name__)
_FOLDER = "realtime/"
HINT = (
    "In asgi.py write 'if settings.DEBUG: http = ASGIStaticFilesHandler(http)', of "
    "django.contrib.staticfiles.handlers, or serve them by WhiteNoise."
)


def connect() -> None:
    """Look at requests until one is for a module of Rowcast that nothing serves."""
    request_started.connect(_look, dispatch_uid="realtime.static_files")


def is_served() -> bool:
    """Whether middleware (WhiteNoise, or of a similar name) or a route serves static files."""
    names = (path.lower() for path in settings.MIDDLEWARE)
    return any("whitenoise" in name or "static" in name for name in names) or _by_route()


def _by_route() -> bool:
    """As `staticfiles_urlpatterns` makes one."""
    path = f"/{(settings.STATIC_URL or '').lstrip('/')}{_FOLDER}client.js"
    try:
        return resolve(path).func.__module__.endswith(("staticfiles.views", "django.views.static"))
    except Exception:
        return False


def _look(
    sender: Any,
    scope: Mapping[str, Any] | None = None,
    environ: Mapping[str, Any] | None = None,
    **_: Any,
) -> None:
    # ASGI's path has the prefix of the server in it, WSGI's has not.
    path = scope["path"] if scope is not None else (environ or {}).get("PATH_INFO", "")
    if f"/{_FOLDER}" not in path or not path.endswith(".js"):
        return
    if getattr(sender, "handles_files", False) or not _is_static(path):
        return
    # Neither middleware nor routes change while a process runs, so this is decided once.
    request_started.disconnect(dispatch_uid="realtime.static_files")
    if not is_served():
        _logger.warning(
            "A page asked for %s, and this server serves no static files (realtime.W014). %s",
            path,
            HINT,
            extra={"action": "static_not_served"},
        )


def _is_static(path: str) -> bool:
    """Whether the path is that of a static file of this project."""
    if not apps.is_installed("django.contrib.staticfiles") or not settings.STATIC_URL:
        return False
    place = urlsplit(settings.STATIC_URL)
    return not place.netloc and f"/{place.path.strip('/')}/{_FOLDER}" in path
