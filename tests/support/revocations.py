"""Changes that take a right away, the people they concern, and a writer that goes on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group, Permission, User
from django.db import OperationalError, connection

from auth_rls.models import Policy
from tests.zoo.models import Member, Note, Team

MINE = {"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}}


class Scene:
    """Ada and Bob are in a team, hold the permission, and a policy shows members their notes."""

    def __init__(self, by_group: bool, codename: str = "view_note", using: Any = MINE) -> None:
        self.permission = Permission.objects.get(codename=codename)
        self.policy = Policy.objects.create(
            name="mine", permission=self.permission, using=using, audience="permission"
        )
        self.team, self.other = [Team.objects.create(name=name) for name in ("team", "other")]
        self.group = Group.objects.create(name="readers")
        self.group.permissions.add(self.permission)
        self.ada, self.bob = [User.objects.create_user(name) for name in ("ada", "bob")]
        for user in (self.ada, self.bob):
            Member.objects.create(user=user, team=self.team)
        self.bob.user_permissions.add(self.permission)
        if by_group:
            self.ada.groups.add(self.group)
        else:
            self.ada.user_permissions.add(self.permission)


def raw(statement: str) -> Callable[[Scene], None]:
    def run(scene: Scene) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                statement, {"ada": scene.ada.pk, "bob": scene.bob.pk, "other": scene.other.pk}
            )

    return run


def edited(**values: Any) -> Callable[[Scene], Any]:
    return lambda scene: Policy.objects.filter(pk=scene.policy.pk).update(**values)


def membership(scene: Scene) -> Any:
    return Member.objects.filter(user=scene.ada)


@dataclass(frozen=True)
class Kind:
    name: str
    revoke: Callable[[Scene], Any]
    by_group: bool = False
    # Whether the others keep what they may see.
    ada_alone: bool = True
    closes: bool = False


KINDS = [
    Kind("a policy is edited", edited(using={"is_public": True}), ada_alone=False),
    Kind("a policy is broken", edited(using={"nonsense": 1}), ada_alone=False),
    Kind("a policy is disabled", edited(enabled=False), ada_alone=False),
    Kind("a policy is deleted", lambda scene: scene.policy.delete(), ada_alone=False),
    Kind(
        "a permission is taken from a user",
        lambda scene: scene.ada.user_permissions.remove(scene.permission),
    ),
    Kind(
        "a permission is taken from a group",
        lambda scene: scene.group.permissions.remove(scene.permission),
        by_group=True,
    ),
    Kind(
        "a user leaves a group",
        lambda scene: scene.ada.groups.remove(scene.group),
        by_group=True,
    ),
    Kind("a group is deleted", lambda scene: scene.group.delete(), by_group=True),
    Kind("a membership is deleted", lambda scene: membership(scene).get().delete()),
    Kind("memberships are deleted", lambda scene: membership(scene).delete()),
    Kind("a membership is moved", lambda scene: membership(scene).update(team=scene.other)),
    Kind("a membership is given away", lambda scene: membership(scene).update(user=scene.bob)),
    Kind("raw deletion", raw("DELETE FROM zoo_member WHERE user_id = %(ada)s")),
    Kind("raw update", raw("UPDATE zoo_member SET team_id = %(other)s WHERE user_id = %(ada)s")),
    Kind(
        "a user is deactivated",
        lambda scene: User.objects.filter(pk=scene.ada.pk).update(is_active=False),
        closes=True,
    ),
    Kind("a user is deleted", lambda scene: scene.ada.delete(), closes=True),
]


class Writer(threading.Thread):
    """Writes notes of the team, about a thousand a second, until it is stopped."""

    def __init__(self, team: int) -> None:
        super().__init__()
        self.team = team
        self.over = threading.Event()

    def run(self) -> None:
        number = 0
        try:
            while not self.over.is_set():
                try:
                    self.write(number)
                except OperationalError:
                    continue  # SQLite's one writer was another.
                number += 5
                time.sleep(0.005)
        finally:
            connection.close()

    def write(self, number: int) -> None:
        """The five from this number on, in one transaction."""
        Note.objects.bulk_create(
            [Note(team_id=self.team, title=str(n)) for n in range(number, number + 5)]
        )
