from __future__ import annotations

from commands import Host as Usual
from desk.models import Person, Ticket
from django.contrib.auth.models import Group, Permission

from auth_rls.models import Policy


class Host(Usual):
    """Only the members of a group see tickets, so that leaving it must be noticed."""

    def policy(self) -> None:
        permission = Permission.objects.get(codename="view_ticket")
        Group.objects.create(name="desk").permissions.add(permission)
        Policy.objects.create(name="own ticket", permission=permission, using=self.using)

    def user(self, name: str) -> str:
        person = Person.objects.create_user(username=name)
        person.groups.add(Group.objects.get(name="desk"))
        # As the database gives it: "usr_1".
        return str(Person.objects.get(username=name).pk)

    def leave(self, key: str) -> bool:
        Person.objects.get(pk=key).groups.clear()
        return True

    def own(self) -> None:
        assert Ticket.objects.filter(owner__username="ada").count() > 0
        assert all(key.startswith("usr_") for key in Person.objects.values_list("pk", flat=True))


host = Host()
