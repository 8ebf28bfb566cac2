"""Green threads, by which gevent and eventlet can replace the threads of a process.

All green threads of a process share one thread of the operating system. To Python and Django an
event loop in one of them runs in every other one too, and Django then refuses its ORM.
"""

from __future__ import annotations

import sys
from typing import Any


def green() -> bool:
    """Whether gevent or eventlet has replaced the threads of this process."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return True
    eventlet: Any = sys.modules.get("eventlet.patcher")
    return eventlet is not None and bool(eventlet.is_monkey_patched("thread"))
