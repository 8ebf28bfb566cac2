"""Writers of items, until the standard input ends or for a number of rows.

`python -m tests.torture.writers PAUSE WRITERS`: each writer is a thread with a connection. It makes
transactions of one to four changes, by the ORM, in bulk and in SQL, one in ten rolled back. A
database that goes away is waited for. What was committed, the log has to say.

`python -m tests.torture.writers RATE SECONDS steady`: single rows at a steady rate, each with the
time of its writing.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from functools import partial

from tests.support.endless_writers import run_until_input_ends, write_transactions

_GROUPS = 20
_LEAST_ROWS = 5


def work(name: str, pause: float, stop: threading.Event) -> None:
    from django.db import connection
    from django.db.models import F

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

    write_transactions(chance, mine, change, stop, lambda: pause * (0.5 + chance.random()))


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
    run_until_input_ends(partial(work, f"writer-{number}", pause) for number in range(writers))


if __name__ == "__main__":
    main(sys.argv[1:])
