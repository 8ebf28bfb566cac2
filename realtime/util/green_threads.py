"""Green threads: gevent and eventlet can put them in the place of a process's threads.

All green threads of a process share one thread of the system. An event loop in one of them would
run, as Python and Django see it, in every other one too, and Django refuses its ORM there.
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
