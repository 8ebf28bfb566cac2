"""ATOMIC_REQUESTS, and views that are closed to all who have not signed in."""

from __future__ import annotations

from base_settings import *  # noqa: F403
from base_settings import DATABASES, MIDDLEWARE

DATABASES["default"]["ATOMIC_REQUESTS"] = True
MIDDLEWARE = [*MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
