"""A client that keeps a set of rows from what it is sent, byte for byte, and nothing else.

It does what any client can: takes a snapshot, applies changes, notes the seq of what it has, and
after a lost connection resumes at its last seq; on "resync required" it begins anew by a snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec
from django.db.models import BinaryField, QuerySet
from django.db.models.expressions import RawSQL

from auth_rls import visible
from realtime.event_log.table import backlog
from realtime.process.hub import hub
from realtime.wal import published, row_images
from realtime.wal.head import read_head
from tests.support.socket_client import Client, db
from tests.support.waiting import auntil
from tests.zoo.models import Note

_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode
_body = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_plain = msgspec.json.decode

Rows = dict[bytes, bytes]


def expected(asker: Any, rows: QuerySet[Any] | None = None) -> Rows:
    """What a set of `rows` (all notes unless given) has to be for this subject in the end."""
    relation = published.relation_for(Note, reads=())
    image = row_images.expression("default", Note, relation).replace("%", "%%")
    queryset = visible(Note.objects.all() if rows is None else rows, asker)
    queryset = queryset.annotate(image=RawSQL(image, [], output_field=BinaryField()))
    return {str(pk).encode(): bytes(text) for pk, text in queryset.values_list("pk", "image")}


class Keeper:
    """One channel with one live binding on the notes, over one socket after another."""

    def __init__(self, token: str | None = None, **binding: Any) -> None:
        self.rows: Rows = {}
        self.seq = 0
        self.epoch = ""
        self.resyncs = 0
        self.snapshots = 0
        self.closes: list[int] = []
        self.order: list[int] = []
        self._token = token
        self._binding = {"event": "*", "schema": "public", "table": "zoo_note", **binding}
        self._coming: Rows | None = None
        self._fresh = True
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._joined = asyncio.Event()
        self.faults: list[str] = []

    @property
    def connected(self) -> bool:
        return self._client is not None

    async def start(self) -> None:
        """Connect, and resume at the seq of the set."""
        self._client = await Client(**({"token": self._token} if self._token else {})).connect()
        self._joined.clear()
        self._coming = None
        await self._join()
        self._task = asyncio.create_task(self._listen(self._client))
        await self._joined.wait()

    async def _join(self) -> None:
        assert self._client is not None
        binding = {**self._binding, "live": True}
        if self._fresh:
            binding["snapshot"] = True
        else:
            binding["since"] = f"{self.epoch}:{self.seq}"
        config = {"postgres_changes": [binding]}
        await self._client.push("realtime:set", "phx_join", {"config": config})

    async def drop(self) -> None:
        """Lose the connection, wherever the stream is."""
        assert self._client is not None and self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._client.close()

    async def _listen(self, client: Client) -> None:
        while True:
            output = await client.raw.receive_output(60)
            if output["type"] == "websocket.close":
                self.closes.append(output["code"])
                self._joined.set()
                return
            _, _, _, event, payload = _decode(output["text"].encode())
            await self._take(_plain(event), payload)

    async def _take(self, event: str, payload: msgspec.Raw) -> None:
        if event == "postgres_changes":
            self._change(_body(_body(payload)["data"]))
        elif event == "phx_reply":
            reply = _plain(payload)
            response = reply["response"]
            if "postgres_changes" in response:
                self.epoch = response["epoch"]
                self._joined.set()
        elif event == "system":
            await self._system(_plain(payload))

    async def _system(self, message: Mapping[str, Any]) -> None:
        if message["message"] == "snapshot begins":
            return
        if message["extension"] == "snapshot":
            assert message["message"] == "snapshot complete", message
            self.rows = self._coming or {}
            if message["count"] != len(self.rows):
                self.faults.append(f"{message['count']} rows announced, {len(self.rows)} came")
            self._coming, self._fresh = None, False
            self.seq = message["seq"]
            self.snapshots += 1
        elif message["message"] == "resync required":
            self.resyncs += 1
            self._fresh, self._coming = True, None
            self.order.clear()
            await self._join()
        elif message["message"] == "caught up":
            self.seq = max(self.seq, message["seq"])

    def _change(self, data: Mapping[str, msgspec.Raw]) -> None:
        type_, seq = _plain(data["type"]), _plain(data["seq"])
        image = data["old_record" if type_ == "DELETE" else "record"]
        key = bytes(_body(image)["id"])
        if "snapshot" in data:
            if self._coming is None:
                self._coming = {}
            if key in self._coming:
                self.faults.append(f"row {key!r} twice in one snapshot")
            self._coming[key] = bytes(image)
            return
        if self._fresh:
            # Changes before the requested snapshot belong to the set that it replaces.
            return
        if self.order and seq < self.order[-1]:
            self.faults.append(f"{seq} after {self.order[-1]}")
        self.order.append(seq)
        if (type_ == "INSERT") is (key in self.rows):
            self.faults.append(f"{type_} of {key!r} at {seq} with the row {key in self.rows}")
        if type_ == "DELETE":
            self.rows.pop(key, None)
        else:
            self.rows[key] = bytes(image)
        self.seq = seq


async def everything_handed_out() -> None:
    """Return when this process has handed out whatever is committed."""
    from django.db import connections

    def reached() -> bool:
        # In this order: what waited may be numbered between the two.
        waiting = backlog(connections["default"])
        return not waiting and here.position.seq == read_head(connections["default"]).seq

    here = hub()
    await auntil(lambda: db(reached), "the end of the log")
