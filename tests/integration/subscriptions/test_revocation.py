"""Revocation: from the place in the log where a right ends, nothing comes by any door (RT-D2).

Each kind of change that takes a right away, while a writer goes on: to somebody who listens, to one
who asks for a snapshot that moment, and to one who resumes from before.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import OperationalError, connection

from auth_rls.models import Policy
from auth_rls.subjects import tokens
from realtime.models import WalEntry
from realtime.process.hub import hub
from tests.integration.subscriptions.test_live_bindings import everything_handed_out
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

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
    """Writes notes of the team, about a thousand a second, until told to stop."""

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


async def opened(asker: str, **binding: Any) -> tuple[Client, str]:
    """A client that has asked for the notes; and the epoch it was told."""
    client = await Client(token=asker).connect()
    table = {"event": "*", "schema": "public", "table": "zoo_note", **binding}
    reply = await client.join(postgres_changes=[table])
    return client, reply["response"].get("epoch", "")


async def heard(client: Client) -> tuple[list[int], list[int]]:
    """The seq of all that the client was sent until now, and the code if it was closed."""
    frames, client.unread = client.unread, []
    if not any(isinstance(frame, int) for frame in frames):
        ref = await client.push("phoenix", "heartbeat", {})
        while True:
            frame = await client.receive()
            frames.append(frame)
            if isinstance(frame, int) or frame[1] == ref:
                break
    changes = [f[4]["data"] for f in frames if isinstance(f, list) and f[3] == "postgres_changes"]
    return [data["seq"] for data in changes], [f for f in frames if isinstance(f, int)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.replace(" ", "-"))
async def test_from_where_a_right_ends_nothing_comes_by_any_door(kind: Kind) -> None:
    scene = await db(Scene, kind.by_group)
    await hub().ready()
    await everything_handed_out()
    asker = token(scene.ada.pk)
    service = tokens.sign({"role": "service_role", "exp": int(time.time() + 600)})
    (ada, epoch), (bob, _), (all_, _) = [
        await opened(asker) for asker in (asker, token(scene.bob.pk), service)
    ]
    for client in (ada, bob, all_):
        await client.until(lambda f: f[3] == "system")
        client.unread.clear()
    writer = Writer(scene.team.pk)
    writer.start()
    try:
        seen = [(await ada.change())["seq"] for _ in range(5)]
        mark = await db(lambda: WalEntry.objects.order_by("-id")[0].id)
        revoking = asyncio.create_task(db(kind.revoke, scene))
        late: list[Client] = []
        for binding in ({"snapshot": True}, {"since": f"{epoch}:{seen[0]}"}):
            if kind.closes:
                # An account that is gone is not let in; that is another test's.
                break
            late.append((await opened(asker, **binding))[0])
        await revoking
        revoked = await db(
            lambda: (
                WalEntry.objects.filter(id__gt=mark)
                .exclude(table_name="zoo_note")
                .earliest("id")
                .pk
            )
        )

        def seq_of(pk: int) -> int:
            return WalEntry.objects.values_list("seq", flat=True).get(pk=pk) or 0

        while not await db(seq_of, revoked):
            await asyncio.sleep(0.01)
        ended = await db(seq_of, revoked)
        # The writer goes on for a good while after.
        while (await all_.change())["seq"] < ended + 30:
            pass
    finally:
        writer.over.set()
        await asyncio.to_thread(writer.join)
    await everything_handed_out()
    seqs, closes = await heard(ada)
    assert all(seq < ended for seq in [*seen, *seqs]), (seqs, ended)
    assert closes == ([4401] if kind.closes else [])
    for client in late:
        seqs, _ = await heard(client)
        assert all(seq < ended for seq in seqs), (seqs, ended)
    written = await db(
        lambda: list(WalEntry.objects.filter(table_name="zoo_note").values_list("seq", flat=True))
    )
    assert max(written) > ended > min(written)
    seqs, _ = await heard(bob)
    assert sorted(seqs) == seqs
    if kind.ada_alone:
        assert set(written) == set(seqs)
    else:
        assert all(seq < ended for seq in seqs)
    for client in (bob, all_, *late, *([] if kind.closes else [ada])):
        await client.close()
