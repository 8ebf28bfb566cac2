from __future__ import annotations

from commands import Host as Usual
from desk.models import OldTicket
from django.core.management import call_command


class Host(Usual):
    def own(self) -> None:
        call_command("migrate", database="archive", verbosity=0)
        OldTicket.objects.create(title="of last year")
        assert OldTicket.objects.using("archive").count() == 1


host = Host()
