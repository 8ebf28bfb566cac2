"""Programs that write until their standard input ends, whatever happens to the database."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Callable, Iterable


class _Regret(Exception):
    """This transaction is not to be."""


def run_until_input_ends(writers: Iterable[Callable[[threading.Event], None]]) -> None:
    """Run each writer in a thread, and set the event that they get when the standard input ends."""
    stop = threading.Event()
    threads = [threading.Thread(target=write, args=(stop,)) for write in writers]
    for thread in threads:
        thread.start()
    sys.stdin.buffer.read()
    stop.set()
    for thread in threads:
        thread.join()


def write_transactions(
    chance: random.Random,
    keys: list[int],
    change: Callable[[], None],
    stop: threading.Event,
    pause: Callable[[], float],
) -> None:
    """Make transactions of one to four changes, one in ten rolled back, until `stop` is set. A
    database that goes away is waited for.

    `keys` are those of the rows that the writer has made, which `change` keeps. `pause` returns the
    seconds before a transaction.
    """
    from django.db import connection, transaction
    from django.db.utils import DatabaseError, InterfaceError

    while not stop.wait(pause()):
        before = list(keys)
        try:
            with transaction.atomic():
                for _ in range(chance.choice((1, 1, 2, 4))):
                    change()
                if chance.random() < 0.1:
                    raise _Regret
        except _Regret:
            keys[:] = before
        except (DatabaseError, InterfaceError):
            # Whether it was committed is not known; no later change relies on it.
            keys.clear()
            with contextlib.suppress(DatabaseError, InterfaceError):
                connection.close()
    connection.close()
