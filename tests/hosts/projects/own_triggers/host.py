from __future__ import annotations

from commands import Host as Usual
from desk.models import Ticket
from django.db import connection

SQLITE = """
CREATE TRIGGER a_tidy AFTER {event} ON desk_ticket WHEN NEW.title <> trim(NEW.title)
BEGIN UPDATE desk_ticket SET title = trim(title) WHERE id = NEW.id; END
"""
POSTGRESQL = """
CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.title := trim(NEW.title); RETURN NEW; END$$;
CREATE TRIGGER a_tidy BEFORE INSERT OR UPDATE ON desk_ticket
FOR EACH ROW EXECUTE FUNCTION tidy()
"""


class Host(Usual):
    def policy(self) -> None:
        super().policy()
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(POSTGRESQL)
            else:
                for event in ("INSERT", "UPDATE"):
                    cursor.execute(SQLITE.format(event=event).replace("a_tidy", f"a_tidy_{event}"))

    def ticket(self, owner: str, title: str) -> int:
        return super().ticket(owner, f"  {title}  ")

    def rename(self, old: str, new: str) -> None:
        super().rename(old, f" {new} ")

    def own(self) -> None:
        assert not Ticket.objects.filter(title__startswith=" ").exists()


host = Host()
