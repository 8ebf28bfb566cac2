"""Revocation on private topics: from the place in the log where a right ends, no broadcast and no
presence comes any more, by whatever kind of change it ended."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from django.db import transaction

import realtime
from auth_rls.subjects import tokens
from realtime.models import Process, WalEntry
from realtime.process.hub import hub
from realtime.process.registry import Registration, Report
from realtime.topics.presence import store
from realtime.topics.presence.changes import PresenceChanges
from realtime.topics.presence.state import PresenceMeta
from realtime.topics.presence.store import PresenceRow
from tests.support.live_client import everything_handed_out
from tests.support.revocations import KINDS, Kind, Scene, Writer
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.support.waiting import auntil

pytestmark = [pytest.mark.usefixtures("wal", "closing_hub"), pytest.mark.slow]

ROOMS = {
    "topic__in": {
        "select": "team",
        "from": "zoo.Member",
        "where": {"user": "$user.id"},
        "prefix": "team:",
    }
}


class Broadcaster(Writer):
    """Sends durable broadcasts to the room of the team."""

    table = "realtime_message"

    def write(self, number: int) -> None:
        with transaction.atomic():
            for n in range(number, number + 5):
                realtime.broadcast(f"team:{self.team}", "n", {"n": n}, private=True, durable=True)

    def places(self) -> dict[int, int]:
        """The seq of each broadcast."""
        entries = WalEntry.objects.filter(table_name=self.table).values_list("seq", "new")
        return {int(json.loads(new)["payload"]["n"]): seq for seq, new in entries}

    def went_on(self, head: int) -> bool:
        """Whether it has sent more for a while behind this position."""
        return hub().position.seq >= head + 30

    @staticmethod
    def heard(frame: list[Any]) -> list[int]:
        return [frame[4]["payload"]["n"]] if frame[3] == "broadcast" else []


class Tracker(Writer):
    """A member of the team's topic on another server, who tracks again all the time."""

    def __init__(self, team: int) -> None:
        super().__init__(team)
        # How far the log was numbered when it tracked.
        self.after: dict[int, int] = {}
        self.loop = asyncio.get_running_loop()
        self.receive = hub().dispatcher.receive

    def write(self, number: int) -> None:
        for n in range(number, number + 5):
            if n == 0:
                Registration("default", "another", Process.Kind.SERVER).renew(Report())
            meta = PresenceMeta("another-1", n + 1, "fidget", b'{"n":%d}' % n)
            row = PresenceRow(meta, f"team:{self.team}", True)
            new, changed = ([row], []) if n == 0 else ([], [row])
            written = store.write("default", "another", n + 1, new, changed, [])
            self.after[n] = written.seq
            message = PresenceChanges(
                "another", n, n + 1, [row.present], [], False, written.epoch, written.seq
            )
            self.loop.call_soon_threadsafe(self.receive, message)

    def places(self) -> dict[int, int]:
        return dict(self.after)

    def went_on(self, head: int) -> bool:
        return sum(seq >= head for seq in self.places().values()) >= 30

    @staticmethod
    def heard(frame: list[Any]) -> list[int]:
        if frame[3] == "presence_state":
            members = frame[4]
        elif frame[3] == "presence_diff":
            members = frame[4]["joins"]
        else:
            return []
        return [meta["n"] for member in members.values() for meta in member["metas"]]


async def joined(asker: str, team: int) -> Client:
    client = await Client(token=asker).connect()
    reply = await client.join(f"realtime:team:{team}", private=True, presence={"enabled": True})
    assert reply["status"] == "ok", reply
    return client


async def until_now(client: Client) -> list[Any]:
    """All that the client was sent."""
    frames, client.unread = client.unread, []
    if any(isinstance(frame, int) for frame in frames):
        return frames
    ref = await client.push("phoenix", "heartbeat", {})
    while True:
        frame = await client.receive()
        frames.append(frame)
        if isinstance(frame, int) or frame[1] == ref:
            return frames


@pytest.mark.parametrize(
    ("codename", "writes"), [("receive_broadcast", Broadcaster), ("view_presence", Tracker)]
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.replace(" ", "-"))
async def test_from_where_a_right_ends_nothing_comes_on_a_private_topic(
    kind: Kind, codename: str, writes: Any
) -> None:
    scene = await db(lambda: Scene(kind.by_group, codename, ROOMS))
    await hub().ready()
    await everything_handed_out()
    service = tokens.sign({"role": "service_role", "exp": int(time.time() + 600)})
    askers = [token(scene.ada.pk), token(scene.bob.pk), service]
    ada, bob, all_ = [await joined(asker, scene.team.pk) for asker in askers]
    writer = writes(scene.team.pk)
    writer.start()

    async def hears(client: Client) -> None:
        await client.until(lambda f: isinstance(f, list) and bool(writer.heard(f)))

    try:
        for _ in range(3):
            await hears(ada)
        mark = await db(lambda: WalEntry.objects.order_by("-id")[0].id)
        await db(kind.revoke, scene)
        own = ("realtime_message", "realtime_presence")
        later = WalEntry.objects.filter(id__gt=mark).exclude(table_name__in=own)
        revoked = await db(lambda: later.earliest("id").pk)
        ended = await auntil(lambda: db(lambda: WalEntry.objects.get(pk=revoked).seq), "numbering")
        head = await db(realtime.head)
        while not writer.went_on(head):
            await hears(all_)
    finally:
        writer.over.set()
        await asyncio.to_thread(writer.join)
    await everything_handed_out()
    seq_of = await db(writer.places)
    # A presence is behind the entry that it names.
    assert max(seq_of.values()) >= ended > min(seq_of.values())
    frames = await until_now(ada)
    heard = [n for f in frames if isinstance(f, list) for n in writer.heard(f)]
    assert all(seq_of[n] < ended for n in heard)
    if kind.closes:
        assert frames[-1] == 4401
    else:
        # Nothing is left to listen for, and the client is told so.
        assert any(frame[3] == "phx_error" for frame in frames if isinstance(frame, list))
    others = [n for f in await until_now(bob) if isinstance(f, list) for n in writer.heard(f)]
    if kind.ada_alone:
        assert others[-1] == max(seq_of)
    else:
        assert all(seq_of[n] < ended for n in others)
    for client in (bob, all_, *([] if kind.closes else [ada])):
        await client.close()
