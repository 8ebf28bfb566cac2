from __future__ import annotations

from commands import Host as Usual
from desk.models import Person


class Host(Usual):
    def user(self, name: str) -> str:
        return str(Person.objects.create(name=name).pk)


host = Host()
