"""The same work in several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.db import connections


def at_once(count: int, work: Callable[[], object]) -> None:
    """Calls this in so many threads, each with database connections of its own. Raises what one of
    the calls raises, after the end of all."""
    everybody = threading.Barrier(count)

    def run() -> None:
        everybody.wait(30)
        try:
            work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as threads:
        running = [threads.submit(run) for _ in range(count)]
    for one in running:
        one.result()
