"""Pages in green threads of gunicorn's gevent worker, beside the ASGI server that holds the
sockets."""

from __future__ import annotations

from base_settings import *  # noqa: F403
from base_settings import INSTALLED_APPS

# Without daphne, whose `runserver` is an ASGI server.
INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "daphne"]
ROOT_URLCONF = "pages"
