"""A router that sends reads to a replica, which here has none of the rows and lags for ever."""

from __future__ import annotations

from base_settings import *  # noqa: F403
from base_settings import DATABASES, database

DATABASES = {**DATABASES, "replica": database("second")}
DATABASE_ROUTERS = ["routers.Replica"]
