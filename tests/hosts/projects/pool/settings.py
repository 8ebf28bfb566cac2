"""Django's own connection pool, of its default size; there is one for PostgreSQL alone."""

from __future__ import annotations

from base_settings import *  # noqa: F403
from base_settings import DATABASES, POSTGRESQL

if POSTGRESQL:
    DATABASES["default"]["OPTIONS"] = {"pool": True}
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 0
