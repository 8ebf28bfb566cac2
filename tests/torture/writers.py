"""Writers of items, until the standard input ends or for a number of rows.

`python -m tests.torture.writers PAUSE WRITERS`: each writer is a thread with a connection. It makes
transactions of one to four changes, by the ORM, in bulk and in SQL, one in ten rolled back. A
database that goes away is waited for. What was committed, the log has to say.

`python -m tests.torture.writers RATE SECONDS steady`: single rows at a steady rate, each with the
time of its writing.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time

_GROUPS = 20
_LEAST_ROWS = 5


class _Regret(Exception):
    """This transaction is not to be."""


def work(name: str, pause: float, stop: threading.Event) -> None:
    from django.db import connection, transaction
    from django.db.models import F
    from django.db.utils import DatabaseError, InterfaceError

    from tests.torture.models import Item
    from tests.torture.names import POISON

    chance = random.Random(name)
    number = 0
    mine: list[int] = []

    def item() -> Item:
        nonlocal number
        number += 1
        value = POISON if chance.random() < 0.02 else chance.randrange(100, 1_000)
        return Item(group=chance.randrange(_GROUPS), value=value, text=f"{name}:{number}")

    def change() -> None:
        deed = chance.random()
        if deed < 0.5 or len(mine) < _LEAST_ROWS:
            made = item()
            made.save()
            mine.append(made.pk)
        elif deed < 0.6:
            mine.extend(made.pk for made in Item.objects.bulk_create([item(), item(), item()]))
        elif deed < 0.75:
            some = chance.sample(mine, 2)
            Item.objects.filter(pk__in=some).update(value=F("value") + 1_000)
        elif deed < 0.9:
            with connection.cursor() as cursor:
                text, key = f"{name}: in SQL", chance.choice(mine)
                sql = "UPDATE torture_item SET text = %s, value = value + 1000 WHERE id = %s"
                cursor.execute(sql, [text, key])
        else:
            Item.objects.filter(pk=mine.pop(chance.randrange(len(mine)))).delete()

    while not stop.wait(pause * (0.5 + chance.random())):
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
    connection.close()


def steadily(rate: float, seconds: float) -> None:
    from tests.torture.models import Item

    began = time.monotonic()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        Item.objects.create(group=number % _GROUPS, written_ns=time.time_ns())


def main(arguments: list[str]) -> None:
    import django

    django.setup()
    if arguments[2:] == ["steady"]:
        steadily(float(arguments[0]), float(arguments[1]))
        return
    pause, writers = float(arguments[0]), int(arguments[1])
    stop = threading.Event()
    threads = [
        threading.Thread(target=work, args=(f"writer-{number}", pause, stop))
        for number in range(writers)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.buffer.read()
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1:])
