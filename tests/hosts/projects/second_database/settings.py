"""Some models live in a second database, and only those of the first are published."""

from __future__ import annotations

from base_settings import *  # noqa: F403
from base_settings import DATABASES, database

DATABASES = {**DATABASES, "archive": database("second")}
DATABASE_ROUTERS = ["routers.Archive"]
