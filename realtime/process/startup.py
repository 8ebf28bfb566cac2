"""What a server process does before its first connection.

The routes of WebSockets are imported by the project's ASGI application, which a server loads before
it listens.
"""

from __future__ import annotations

import logging

from django.apps import apps
from django.conf import settings
from django.urls import get_resolver

from realtime.delivery.client_frames import bound_first_connections

logger = logging.getLogger("realtime.startup")


def prepare() -> None:
    """Bound what clients may send from the first connection on, and load the project's URLs."""
    bound_first_connections()
    _load_urls()


def _load_urls() -> None:
    """Load the project's URLs and views. Django loads them for the first request, on the event
    loop, where every socket waits for it.

    Not where an app's `ready()` imports the routes: views may need what later apps set up.
    """
    if not apps.ready or not getattr(settings, "ROOT_URLCONF", None):
        return
    try:
        get_resolver().url_patterns  # noqa: B018  (a property that loads them)
    except Exception as error:
        # Django answers requests with this error. Sockets are served all the same.
        logger.warning(
            "%s was not loaded: %s", settings.ROOT_URLCONF, error, extra={"action": "urls_failed"}
        )
