"""The log, the processes and the topics in the admin, read-only, and the changes of objects."""

from __future__ import annotations

# Importing the modules registers their admins.
from realtime.admin import log as log
from realtime.admin import processes as processes
from realtime.admin import topics as topics
from realtime.admin.changes import ChangesMixin

__all__ = ["ChangesMixin"]
