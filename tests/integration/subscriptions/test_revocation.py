"""Revocation: from the place in the log where a right ends, nothing comes by any door (RT-D2).

Each kind of change that takes a right away, while a writer goes on: to somebody who listens, to one
who asks for a snapshot that moment, and to one who resumes from before.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from auth_rls.subjects import tokens
from realtime.models import WalEntry
from realtime.process.hub import hub
from tests.support.live_client import everything_handed_out
from tests.support.revocations import KINDS, Kind, Scene, Writer
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.support.waiting import auntil

pytestmark = [pytest.mark.usefixtures("wal", "closing_hub"), pytest.mark.slow]


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

        ended = await auntil(lambda: db(seq_of, revoked), "numbering")
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
