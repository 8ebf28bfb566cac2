"""Writers that go on until the standard input ends.

`python -m tests.acceptance.support.writer NAME PAUSE CONNECTIONS OWNER...`

Each connection makes transactions of one to four changes of notes, one in ten rolled back. A
database that goes away is waited for. What was committed, the log has to say.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from typing import Any


class _Regret(Exception):
    """This transaction is not to be."""


def work(name: str, pause: float, owners: list[int], stop: threading.Event) -> None:
    from django.db import connection, transaction
    from django.db.utils import DatabaseError, InterfaceError

    from tests.zoo.models import Note

    chance = random.Random(name)
    number = 0
    mine: list[int] = []

    def change() -> None:
        nonlocal number
        deed = chance.random()
        if deed < 0.6 or len(mine) < 5:
            number += 1
            note = Note.objects.create(
                owner_id=chance.choice(owners),
                title=f"{name}:{number}",
                is_public=chance.random() < 0.3,
            )
            mine.append(note.pk)
        elif deed < 0.9:
            number += 1
            Note.objects.filter(pk=chance.choice(mine)).update(title=f"{name}:{number}")
        else:
            Note.objects.filter(pk=mine.pop(chance.randrange(len(mine)))).delete()

    while not stop.wait(pause):
        before = list(mine)
        try:
            with transaction.atomic():
                for _ in range(chance.choice((1, 1, 2, 4))):
                    change()
                if chance.random() < 0.1:
                    raise _Regret
        except _Regret:
            mine[:] = before
        except (DatabaseError, InterfaceError):
            # Whether it was committed is not known; no later change relies on it.
            mine.clear()
            with contextlib.suppress(DatabaseError, InterfaceError):
                connection.close()


def main(arguments: list[str]) -> Any:
    import django

    django.setup()
    name, pause, connections, *owners = arguments
    stop = threading.Event()
    owner_ids = [int(owner) for owner in owners]
    threads = [
        threading.Thread(target=work, args=(f"{name}.{number}", float(pause), owner_ids, stop))
        for number in range(int(connections))
    ]
    for thread in threads:
        thread.start()
    sys.stdin.buffer.read()
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1:])
