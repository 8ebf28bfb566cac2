"""Writers that go on until the standard input ends.

`python -m tests.acceptance.support.writer NAME PAUSE CONNECTIONS OWNER...`

Each connection makes transactions of one to four changes of notes, one in ten rolled back. A
database that goes away is waited for. What was committed, the log has to say.
"""

from __future__ import annotations

import random
import sys
import threading
from functools import partial

from tests.support.endless_writers import run_until_input_ends, write_transactions


def work(name: str, pause: float, owners: list[int], stop: threading.Event) -> None:
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

    write_transactions(chance, mine, change, stop, lambda: pause)


def main(arguments: list[str]) -> None:
    import django

    django.setup()
    name, pause, connections, *owners = arguments
    owner_ids = [int(owner) for owner in owners]
    run_until_input_ends(
        partial(work, f"{name}.{number}", float(pause), owner_ids)
        for number in range(int(connections))
    )


if __name__ == "__main__":
    main(sys.argv[1:])
