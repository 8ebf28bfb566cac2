"""What both ways of testing share."""

from __future__ import annotations

import threading
from typing import Any

from desk.models import Ticket
from django.contrib.auth.models import AnonymousUser, User

MATRIX = """\
                            ada  bob  anon
desk.Ticket “Lamp”  view    yes  -    -
                    delete  -    -    -"""


def people() -> tuple[Any, Any]:
    return User.objects.create(username="ada"), User.objects.create(username="bob")


def ticket(owner: Any, title: str = "Lamp") -> Ticket:
    return Ticket.objects.create(owner=owner, title=title)


def left_over() -> list[str]:
    """Threads of ours that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rowcast")]


ANYBODY = AnonymousUser()
