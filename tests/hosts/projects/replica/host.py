from __future__ import annotations

from commands import Host as Usual
from django.contrib.auth.models import Permission

from auth_rls.models import Policy


class Host(Usual):
    def policy(self) -> None:
        permission = Permission.objects.using("default").get(codename="view_ticket")
        policy = Policy(name="own", using=self.using, audience="anyone")
        policy.permission_id = permission.pk
        policy.save(using="default")


host = Host()
