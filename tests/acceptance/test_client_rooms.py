"""client.js in rooms of a real server: broadcasts and presence, public and private."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.acceptance.support.client_page import Page
from tests.acceptance.support.line_program import Line
from tests.acceptance.support.server import Server
from tests.acceptance.support.worlds import World
from tests.support.tokens import token


class Room(Page):
    """A page in a room. It does what it is told, and `lines` is all that it heard."""

    def begin(self, method: str, *args: Any) -> None:
        self.say(json.dumps([method, *args]))

    async def do(self, method: str, *args: Any) -> Line:
        """Calls a method of the channel and waits until its promise is settled."""
        start = len(self.lines)
        self.begin(method, *args)
        return await self.until(lambda one: method in (one.get("done"), one.get("failed")), start)

    async def until_here(self, *keys: str, start: int = 0) -> Line:
        """Waits until exactly these keys are present, and all of that change was told."""
        return await self.until(
            lambda one: one.get("presence") == "sync" and sorted(one["here"]) == sorted(keys), start
        )

    async def until_broadcast(self, event: str) -> Line:
        return await self.until(lambda one: one.get("broadcast") == event)

    def came_and_went(self, start: int = 0) -> list[tuple[str, str]]:
        """Every "join" and "leave", with its key."""
        return [
            (one["presence"], one["key"])
            for one in self.lines[start:]
            if one.get("presence") in ("join", "leave")
        ]


@contextlib.asynccontextmanager
async def room(server: Server, user: int, name: str, **options: Any) -> AsyncIterator[Room]:
    told = {
        "url": server.address("/realtime"),
        "token": token(user),
        "name": name,
        "channel": options,
    }
    entered = await Room.opened("room.mjs", told)
    try:
        yield entered
    finally:
        await entered.close()


async def test_broadcasts_of_json_and_of_bytes_reach_the_others_and_are_acknowledged(
    world: World,
) -> None:
    me, you = world.orm.user("speaker"), world.orm.user("listener")
    async with (
        room(world.server, me, "lobby", ack=True) as mine,
        room(world.server, you, "lobby") as yours,
    ):
        await mine.until_status("live")
        await yours.until_status("live")
        assert await mine.do("send", "words", {"ü": [1, None]}) == {"done": "send"}
        assert await mine.do("send", "bytes", {"bytes": [0, 255, 7]}) == {"done": "send"}
        assert (await yours.until_broadcast("words"))["payload"] == {"ü": [1, None]}
        assert (await yours.until_broadcast("bytes"))["payload"] == {"bytes": [0, 255, 7]}
        refused = await mine.do("send", "much", {"text": "x" * 70_000})
        assert refused == {"failed": "send", "error": "payload_size_exceeded"}
        assert not [one for one in mine.lines if "broadcast" in one]


async def test_those_in_a_room_see_who_comes_changes_and_goes(world: World) -> None:
    me, you = world.orm.user("first"), world.orm.user("second")
    async with room(world.server, me, "hall", presenceKey="me") as mine:
        # Before it is joined, too.
        assert await mine.do("track", {"mood": "well"}) == {"done": "track"}
        await mine.until_here("me")
        async with room(world.server, you, "hall", presenceKey="you") as yours:
            await yours.until_here("me")
            await yours.do("track", {"mood": "new"})
            line = await mine.until_here("me", "you")
            assert [meta["mood"] for meta in line["here"]["you"]] == ["new"]
            start = len(mine.lines)
            await yours.do("track", {"mood": "changed"})

            def moods(line: Any) -> list[str]:
                return [meta["mood"] for meta in line.get("here", {}).get("you", ())]

            # What was told before may be told once more before that.
            await mine.until(lambda one: moods(one) == ["changed"], start)
            await yours.do("untrack")
            await mine.until_here("me", start=start)
            start = len(mine.lines)
            await yours.do("track", {"mood": "back"})
            await mine.until_here("me", "you", start=start)
            start = len(mine.lines)
        await mine.until_here("me", start=start)
        assert mine.came_and_went(start) == [("leave", "you")]


async def test_a_page_is_here_again_after_its_server_was_away_and_never_left_for_itself(
    fresh: Callable[..., World],
) -> None:
    world = fresh()
    me = world.orm.user("me")
    async with room(world.server, me, "hall", presenceKey="me") as mine:
        await mine.do("track", {"n": 1})
        await mine.until_here("me")
        for end in (world.server.kill, world.server.stop):
            start = len(mine.lines)
            end()
            await mine.until_status("errored", start)
            world.server.start()
            await mine.until_status("live", start)
            async with room(world.server, me, "hall", presenceKey="you") as yours:
                # Others see it, so it has been tracked again.
                await yours.until(lambda one: "me" in one.get("here", ()))
                await yours.do("track", {})
                await mine.until(lambda one: "you" in one.get("here", ()), start)
            left = await mine.until(lambda one: one.get("presence") == "leave", start)
            assert left["key"] == "you"
            assert "me" not in [key for _, key in mine.came_and_went(start)]


async def test_a_private_room_lets_in_whom_its_policies_let_in(world: World) -> None:
    me = world.orm.user("guest")
    for permission in ("receive_broadcast", "view_presence"):
        world.orm.policy(permission, {"topic": "club"}, permission=permission)
    no = "Unauthorized: You do not have permissions to"
    async with (
        room(world.server, me, "elsewhere", private=True) as outside,
        room(world.server, me, "club", private=True, ack=True) as inside,
    ):
        refused = await outside.until_status("errored")
        assert refused["error"] == f"{no} read from this Channel topic: elsewhere"
        await inside.until_status("live")
        sent = await inside.do("send", "hi", {})
        assert sent["error"] == f"{no} write to this Channel topic: club"
        tracked = await inside.do("track", {})
        assert tracked["error"] == f"{no} track presence on this Channel topic: club"
        await inside.until_here()


@pytest.mark.timeout(120)
async def test_stored_broadcasts_come_first_and_after_a_lost_connection_once(
    fresh: Callable[..., World],
) -> None:
    world = fresh()
    me = world.orm.user("me")
    world.orm.policy("hear", {"topic": "news"}, permission="receive_broadcast")

    def publish(number: int) -> None:
        news = {"topic": "news", "event": f"n{number}", "payload": {}, "private": True}
        world.orm.create("realtime.Message", **news)

    for number in (1, 2):
        publish(number)
    async with room(
        world.server, me, "news", private=True, replay={"since": 1, "limit": 25}
    ) as mine:
        await mine.until_broadcast("n2")
        publish(3)
        await mine.until_broadcast("n3")
        start = len(mine.lines)
        world.server.kill()
        await mine.until_status("errored", start)
        publish(4)
        world.server.start()
        await mine.until_status("live", start)
        await mine.until_broadcast("n4")
        publish(5)
        await mine.until_broadcast("n5")
        news = [one for one in mine.lines if "broadcast" in one]
        assert [one["broadcast"] for one in news] == ["n1", "n2", "n3", "n4", "n5"]
        replayed = [one["meta"].get("replayed", False) for one in news]
        assert replayed == [True, True, False, True, False]
        assert len({one["meta"]["id"] for one in news}) == 5
