"""The handler that the page about testing runs."""

from __future__ import annotations

from desk.models import ArchivedTicket, Ticket
from realtime import on_change
from realtime.handling.handled_change import HandledChange


@on_change(Ticket, name="archive", events=["UPDATE"], columns=["title"])
def archive(change: HandledChange) -> None:
    if change.new["title"].endswith("(closed)"):
        ArchivedTicket.objects.create(title=change.new["title"])
