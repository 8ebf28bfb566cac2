"""A client in the same process: real frames through the real application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator

from realtime.routing import websocket_urlpatterns
from realtime.util.database_threads import in_database_thread
from tests.support.waiting import PATIENCE_SECONDS

T = TypeVar("T")
application = URLRouter(websocket_urlpatterns)


async def db(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Do something with the database, which no event loop may."""
    return await in_database_thread(lambda: function(*args, **kwargs))


class Client:
    """One socket speaking serializer 2.0.0. Frames are lists of five."""

    def __init__(
        self,
        path: str = "/realtime/v1/websocket",
        headers: list[tuple[bytes, bytes]] | None = None,
        **query: str,
    ) -> None:
        url = f"{path}?{urlencode({'vsn': '2.0.0', **query})}"
        self.raw = WebsocketCommunicator(application, url, headers=headers)
        self._ref = 0
        self.unread: list[Any] = []

    async def connect(self) -> Client:
        connected, code = await self.raw.connect(timeout=PATIENCE_SECONDS)
        assert connected, code
        return self

    async def refusal(self) -> int:
        connected, code = await self.raw.connect(timeout=PATIENCE_SECONDS)
        assert not connected
        return int(code or 0)

    async def push(self, topic: str, event: str, payload: Any, join_ref: str | None = None) -> str:
        self._ref += 1
        ref = str(self._ref)
        await self.raw.send_to(text_data=json.dumps([join_ref or ref, ref, topic, event, payload]))
        return ref

    async def receive(self) -> Any:
        output = await self.raw.receive_output(PATIENCE_SECONDS)
        if output["type"] == "websocket.close":
            return output["code"]
        return json.loads(output["text"]) if "text" in output else output["bytes"]

    async def until(self, matches: Callable[[Any], bool]) -> Any:
        """The next frame that matches; those before it are kept in `unread`."""
        while True:
            frame = await self.receive()
            if matches(frame):
                return frame
            self.unread.append(frame)

    async def reply(self, ref: str) -> Any:
        frame = await self.until(lambda f: isinstance(f, list) and f[1] == ref)
        return frame[4]

    async def join(self, topic: str = "realtime:room", **config: Any) -> Any:
        token = config.pop("access_token", None)
        payload = {"config": config, **({"access_token": token} if token else {})}
        ref = await self.push(topic, "phx_join", payload)
        return await self.reply(ref)

    async def listen(
        self, table: str = "zoo_note", topic: str = "realtime:room", **extra: Any
    ) -> Any:
        """Join for the changes of a table, and wait for the word that they flow."""
        access_token = extra.pop("access_token", None)
        binding = {"event": "*", "schema": "public", "table": table, **extra}
        reply = await self.join(topic, postgres_changes=[binding], access_token=access_token)
        assert reply["status"] == "ok", reply
        await self.until(lambda f: f[3] == "system")
        return reply["response"]

    async def change(self) -> Any:
        """The data of the next change."""
        frame = await self.until(lambda f: isinstance(f, list) and f[3] == "postgres_changes")
        return frame[4]["data"]

    async def silent(self, nothing_for: float = 0.1) -> bool:
        return not self.unread and await self.raw.receive_nothing(nothing_for)

    async def close(self) -> None:
        await self.raw.disconnect(timeout=PATIENCE_SECONDS)


async def closed(client: Client) -> int:
    """The code the server closes this socket with."""
    code = await client.until(lambda frame: isinstance(frame, int))
    await asyncio.wait({client.raw.future}, timeout=PATIENCE_SECONDS)
    return int(code)
