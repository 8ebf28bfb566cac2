"""Processes that are forked from this one, as Celery's and gunicorn's workers are.

Threads do not come along. A lock that one of them holds at that moment stays locked, and what is
given to an executor waits for ever, unless both are made anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable


def in_child(renew: Callable[[], None]) -> None:
    """Have `renew` called at the start of each process that is forked from this one. Does nothing
    where processes cannot be forked."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
