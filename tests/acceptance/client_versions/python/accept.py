"""Puts one version of the official Python client, unmodified, through a short run.

The first line of standard input says where the server is and which tokens there are. From then on
each line out is a check that went well or failed, or asks the test for something to be done in the
database; each line in is the answer to that.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from realtime import AsyncRealtimeClient

PATIENCE = 60.0
SUBSCRIBED = "Subscribed to PostgreSQL"


def emit(**what: Any) -> None:
    sys.stdout.write(json.dumps(what, default=str) + "\n")
    sys.stdout.flush()


class Run:
    """The run of one version. `news` is notified of everything that a condition may depend on."""

    def __init__(self, answers: asyncio.StreamReader, say: dict[str, Any]) -> None:
        self._answers = answers
        self._asked = 0
        self._news = asyncio.Event()
        self.say = say
        self.version = say["version"]
        self.me, self.other = say["me"], say["other"]

    def heard(self, items: list[Any]) -> Callable[..., None]:
        """A callback that keeps what it is called with."""

        def keep(payload: Any = None, *rest: Any) -> None:
            items.append(payload)
            self._news.set()

        return keep

    async def until(self, what: str, condition: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"it never came: {what}") from None

    async def ask(self, deed: str, *values: Any) -> Any:
        """Have the test do something in the database."""
        self._asked += 1
        emit(ask=self._asked, deed=deed, values=values)
        return json.loads(await self._answers.readline())["value"]

    async def check(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        if name not in self.say["checks"]:
            return
        try:
            await body()
        except Exception:
            emit(version=self.version, check=name, error=traceback.format_exc())
        else:
            emit(version=self.version, check=name)

    # --- the client -----------------------------------------------------------------------------

    async def connect(self, person: dict[str, Any]) -> Any:
        client = AsyncRealtimeClient(self.say["url"], self.say["key"], auto_reconnect=True)
        await client.connect()
        if not self.say["listensByItself"]:
            asyncio.get_running_loop().create_task(client.listen())
        await client.set_auth(person["token"])
        return client

    def on_system(self, channel: Any, items: list[Any]) -> None:
        """Keep that changes flow. Old clients hand it out under no name of its own."""

        def keep(payload: Any, *rest: Any) -> None:
            message = payload["message"] if isinstance(payload, dict) else payload.message
            if message == SUBSCRIBED:
                self.heard(items)(message)

        if hasattr(channel, "on_system"):
            channel.on_system(keep)
        else:
            channel._on("system", callback=keep)

    async def subscribe(self, channel: Any) -> list[Any]:
        statuses: list[Any] = []

        def keep(status: Any, error: Any = None) -> None:
            statuses.extend((status.value, str(error)))
            self._news.set()

        await channel.subscribe(keep)
        await self.until("a status", lambda: statuses)
        return statuses

    async def subscribed(self, channel: Any) -> None:
        assert (await self.subscribe(channel))[0] == "SUBSCRIBED"


def data(change: Any) -> Any:
    return change["data"]


def rows(changes: list[Any]) -> list[tuple[str, str]]:
    found = []
    for change in map(data, changes):
        row = change.get("record") or change["old_record"]
        found.append((str(getattr(change["type"], "value", change["type"])), row["title"]))
    return found


async def accept(run: Run) -> None:
    version, me, other = run.version, run.me, run.other
    one, two = await run.connect(me), await run.connect(me)
    table = {"table": "zoo_note", "schema": "public"}
    every: list[Any] = []
    inserts: list[Any] = []
    sevens: list[Any] = []
    flows: list[Any] = []
    notes = one.channel(f"notes {version}")

    async def changes() -> None:
        notes.on_postgres_changes("*", run.heard(every), **table)
        notes.on_postgres_changes("INSERT", run.heard(inserts), **table)
        # For "*" versions before 2.5 do not look at which bindings a change is for.
        notes.on_postgres_changes("INSERT", run.heard(sevens), **table, filter="score=eq.7")
        run.on_system(notes, flows)
        await run.subscribed(notes)
        await run.until("Subscribed", lambda: flows)
        await run.ask("note", other["id"], f"{version} hidden", 7)
        pk = await run.ask("note", me["id"], f"{version} one", 1)
        await run.ask("note", me["id"], f"{version} seven", 7)
        await run.ask("change", pk, f"{version} changed")
        await run.ask("delete", pk)
        await run.until("the last change", lambda: rows(every)[-1:] == life[-1:])
        assert rows(every) == life
        assert rows(inserts) == life[:2]
        assert rows(sevens) == [("INSERT", f"{version} seven")]

    life = [
        ("INSERT", f"{version} one"),
        ("INSERT", f"{version} seven"),
        ("UPDATE", f"{version} changed"),
        ("DELETE", f"{version} changed"),
    ]

    def pair(name: str, config: dict[str, Any]) -> tuple[Any, Any]:
        mine, theirs = (client.channel(name, {"config": config}) for client in (one, two))
        return mine, theirs

    def broadcast(ack: bool) -> Callable[[], Awaitable[None]]:
        async def body() -> None:
            config = {"broadcast": {"ack": ack, "self": False}, "presence": {"key": ""}}
            mine, theirs = pair(f"room {ack} {version}", config)
            messages: list[Any] = []
            own: list[Any] = []
            theirs.on_broadcast("said", run.heard(messages))
            mine.on_broadcast("said", run.heard(own))
            await run.subscribed(mine)
            await run.subscribed(theirs)
            for n in (1, 2):
                await mine.send_broadcast("said", {"n": n})
            await run.until("both", lambda: len(messages) == 2)
            assert [message["payload"] for message in messages] == [{"n": 1}, {"n": 2}]
            assert own == []
            await mine.unsubscribe()
            await theirs.unsubscribe()

        return body

    async def presence() -> None:
        synced: list[Any] = []
        channels = {}
        for key, client in (("ada", one), ("bob", two)):
            config = {"presence": {"key": key, "enabled": True}, "broadcast": {}}
            channels[key] = client.channel(f"present {version}", {"config": config})
            channels[key].on_presence_sync(run.heard(synced))
            await run.subscribed(channels[key])
        for key, channel in channels.items():
            await channel.track({"name": key.title()})

        def names(key: str) -> dict[str, str]:
            return {
                member: metas[0]["name"] for member, metas in channels[key].presence_state().items()
            }

        for key in channels:
            await run.until("both", lambda: names(key) == {"ada": "Ada", "bob": "Bob"})  # noqa: B023
        await channels["bob"].untrack()
        await run.until("one", lambda: names("ada") == {"ada": "Ada"})
        for channel in channels.values():
            await channel.unsubscribe()

    async def private() -> None:
        config = {"private": True, "broadcast": {"ack": True, "self": False}}
        mine, theirs = pair(f"open {version}", {**config, "presence": {"key": ""}})
        messages: list[Any] = []
        theirs.on_broadcast("said", run.heard(messages))
        await run.subscribed(mine)
        await run.subscribed(theirs)
        await mine.send_broadcast("said", {"n": 1})
        await run.until("it", lambda: messages)
        shut = one.channel(f"shut {version}", {"config": {**config, "presence": {"key": ""}}})
        status, reason = (await run.subscribe(shut))[:2]
        assert status == "CHANNEL_ERROR" and "permissions" in reason, (status, reason)
        await shut.unsubscribe()
        await mine.unsubscribe()
        await theirs.unsubscribe()

    async def reconnect() -> None:
        before = len(flows)
        one._ws_connection.transport.abort()
        await run.until("Subscribed", lambda: len(flows) > before)
        await run.ask("note", me["id"], f"{version} again", 7)
        await run.until("a change", lambda: rows(sevens)[-1] == ("INSERT", f"{version} again"))

    async def access_token() -> None:
        before, start = len(flows), len(every)
        await one.set_auth(other["token"])
        await run.until("Subscribed", lambda: len(flows) > before)
        await run.ask("note", me["id"], f"{version} mine no more", 1)
        await run.ask("note", other["id"], f"{version} other", 1)
        await run.until("a change", lambda: len(every) > start)
        assert rows(every[start:]) == [("INSERT", f"{version} other")]

    async def unsubscribe() -> None:
        later: list[Any] = []
        rest = one.channel(f"rest {version}")
        rest.on_postgres_changes("*", run.heard(later), **table)
        await run.subscribed(rest)
        start = len(every)
        await notes.unsubscribe()
        await run.ask("note", other["id"], f"{version} last", 7)
        await run.until("a change", lambda: later)
        assert len(every) == start

    await run.check("changes", changes)
    await run.check("broadcast with ack", broadcast(ack=True))
    await run.check("broadcast", broadcast(ack=False))
    await run.check("presence", presence)
    await run.check("private", private)
    await run.check("reconnect", reconnect)
    await run.check("access token", access_token)
    await run.check("unsubscribe", unsubscribe)


async def main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    await accept(Run(lines, json.loads(await lines.readline())))


asyncio.run(main())
