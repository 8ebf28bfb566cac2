"""The log, processes and topics in the admin, read-only; handlers, what they gave up, changes of
objects, and webhooks."""

from __future__ import annotations

# Importing the modules registers their admins.
from realtime.admin import handlers as handlers
from realtime.admin import histories as histories
from realtime.admin import log as log
from realtime.admin import processes as processes
from realtime.admin import topics as topics
from realtime.admin import webhooks as webhooks
from realtime.admin.changes import ChangesMixin

__all__ = ["ChangesMixin"]
