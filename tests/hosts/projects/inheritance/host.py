from __future__ import annotations

from commands import Host as Usual
from desk.models import Paper, Ticket


class Host(Usual):
    model = "desk.Paper"

    def ticket(self, owner: str, title: str) -> int:
        """A row of the child, whose parent's row is what is published."""
        return Ticket.objects.create(owner_id=owner, title=title, urgent=True).pk

    def rename(self, old: str, new: str) -> None:
        Ticket.objects.filter(title=old).update(title=new)

    def own(self) -> None:
        assert Paper.objects.count() == Ticket.objects.count() > 0


host = Host()
