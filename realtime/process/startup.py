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
from realtime.process import early_start
from realtime.wal import published

logger = logging.getLogger("realtime.startup")


def prepare() -> None:
    """Bound what clients may send from the first connection on, load the project's URLs, log which
    published models are not captured, and let handlers and webhooks begin with the server."""
    bound_first_connections()
    _load_urls()
    _tell_of_mistakes()
    early_start.with_the_server()


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


def _tell_of_mistakes() -> None:
    """A server may be started without the system checks, which say the same."""
    for entry in published.declared() if apps.ready else ():
        problem = published.problem(entry)
        if problem is not None:
            logger.error(
                "%s is not captured: %s (%s) %s",
                entry.model._meta.label,
                problem.message,
                problem.id,
                problem.hint,
                extra={"action": "not_captured"},
            )
