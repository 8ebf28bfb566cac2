"""Behind pgbouncer in transaction mode, where each transaction may run in another session."""

from __future__ import annotations

from base_settings import *  # noqa: F403
from base_settings import DATABASES

# As Django's documentation says of such poolers.
DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True
