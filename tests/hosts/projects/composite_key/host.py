from __future__ import annotations

from typing import Any

from commands import Host as Usual
from desk.models import Ticket


class Host(Usual):
    def ticket(self, owner: str, title: str) -> Any:
        number = Ticket.objects.count() + 1
        return Ticket.objects.create(owner_id=owner, number=number, title=title).pk


host = Host()
