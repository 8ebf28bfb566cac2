"""The official JavaScript clients, run by `node/driver.mjs` and spoken to line by line."""

from __future__ import annotations

import json
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from tests.acceptance.support.line_program import LineProgram
from tests.acceptance.support.server import ANON_KEY, PATIENCE, Server
from tests.support import node

FOLDER = Path(__file__).resolve().parent.parent / "node"

Event = dict[str, Any]

LIBRARIES = [
    pytest.param(library, vsn, id=f"{library}-{vsn}")
    for library in ("supabase", "realtime")
    for vsn in ("1.0.0", "2.0.0")
]
"""The official libraries, and the serializers that they speak."""


def missing() -> str | None:
    """Why the clients cannot run here, or None when they can."""
    if reason := node.missing():
        return reason
    if not (FOLDER / "node_modules").is_dir():
        return "the clients are not installed; scripts/test does that"
    return None


class Node(LineProgram):
    """A driver with any number of clients in it. `events` are what they sent and got."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self._commands = 0

    @classmethod
    async def of_the_official_clients(cls) -> Self:
        return await cls.start("node", "driver.mjs", cwd=FOLDER)

    @property
    def events(self) -> list[Event]:
        return self.lines

    async def do(self, command: str, **options: Any) -> Any:
        """Carries out a command of the driver and returns its value."""
        self._commands += 1
        number = self._commands
        self.say(json.dumps({"id": number, "command": command, **options}))
        answer = await self.until(lambda e: e["event"] == "answer" and e["id"] == number)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    async def until(
        self, wanted: Callable[[Event], bool], *, start: int = 0, patience: float = PATIENCE
    ) -> Event:
        """The first event from number `start` on that is wanted."""
        seen = start

        def found() -> Event | None:
            nonlocal seen
            while seen < len(self.events):
                event = self.events[seen]
                seen += 1
                assert event["event"] != "failure", event
                if wanted(event):
                    return event
            return None

        return await self.first(found, patience)

    # Shorthands

    async def open(
        self,
        server: Server,
        client: str = "me",
        *,
        library: str = "supabase",
        vsn: str = "2.0.0",
        key: str = ANON_KEY,
        token: str | None = None,
        callback: bool | None = None,
        **options: Any,
    ) -> None:
        """A client that, with a token, is its bearer.

        With `callback` the client asks for its token, which is the only way supabase-js keeps
        one that is not a Supabase session's; else it is given by `setAuth`.
        """
        if callback is None:
            callback = token is not None and library == "supabase"
        names = {"client": client, "library": library, "url": server.origin, "key": key}
        await self.do("open", **names, vsn=vsn, token=token, callback=callback, **options)
        if token and not callback:
            await self.do("setAuth", client=client, token=token)

    async def subscribe(
        self, channel: str, *bindings: dict[str, Any], client: str = "me", **options: Any
    ) -> None:
        """Returns when the client says SUBSCRIBED."""
        start = len(self.events)
        await self.do("channel", client=client, channel=channel, bindings=list(bindings), **options)
        await self.status(channel, "SUBSCRIBED", client=client, start=start)

    async def status(
        self, channel: str, status: str, *, client: str = "me", start: int = 0
    ) -> Event:
        return await self.until(
            lambda e: (
                e["event"] == "status"
                and (e["client"], e["channel"], e["status"]) == (client, channel, status)
            ),
            start=start,
        )

    async def change(
        self, channel: str, *, client: str = "me", start: int = 0, **cells: Any
    ) -> Any:
        """The payload of the first change whose new (or, gone, old) row has these cells."""

        def fits(event: Event) -> bool:
            if event["event"] != "change":
                return False
            payload = event["payload"]
            row = payload["new"] or payload["old"]
            here = (event["client"], event["channel"]) == (client, channel)
            return here and cells.items() <= row.items()

        return (await self.until(fits, start=start))["payload"]

    def changes(self, channel: str, client: str = "me") -> list[Event]:
        """Every change a channel's bindings heard, oldest first."""
        return [
            event
            for event in self.events
            if event["event"] == "change"
            and (event["client"], event["channel"]) == (client, channel)
        ]

    def frames(self, client: str = "me") -> list[str]:
        """The text frames a client was sent."""
        return [
            event["text"]
            for event in self.events
            if event["event"] == "frame" and event["client"] == client and "text" in event
        ]
