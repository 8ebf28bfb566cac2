"""A plain socket that speaks the protocol and hides nothing: every frame is kept as it came.

Frames of both serializers become one shape, `Frame`, with the text beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.acceptance.support.server import ANON_KEY, PATIENCE, Server


@dataclass(frozen=True, slots=True)
class Frame:
    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: Any
    text: str

    @property
    def data(self) -> dict[str, Any]:
        """What a change frame carries."""
        return self.payload["data"]


def _decode(text: str) -> Frame:
    value = json.loads(text)
    if isinstance(value, list):
        return Frame(*value, text=text)
    return Frame(None, value["ref"], value["topic"], value["event"], value["payload"], text)


class RawClient:
    """One connection. `frames` holds all that came, oldest first; `binary` the binary ones."""

    def __init__(self, socket: ClientConnection, vsn: str) -> None:
        self.frames: list[Frame] = []
        self.binary: list[bytes] = []
        self.close_code: int | None = None
        self._socket = socket
        self._vsn = vsn
        self._ref = 0
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(
        cls,
        server: Server,
        *,
        vsn: str = "2.0.0",
        key: str | None = ANON_KEY,
        path: str = "/realtime/v1/websocket",
        query: str = "",
        headers: dict[str, str] | None = None,
    ) -> RawClient:
        """Raises websockets' InvalidStatus when the server refuses the handshake."""
        parts = [f"apikey={key}"] if key else []
        parts += [f"vsn={vsn}"] if vsn else []
        parts += [query] if query else []
        socket = await connect(
            server.address(path, "&".join(parts)),
            additional_headers=headers,
            max_size=None,
            max_queue=None,
            compression=None,
            proxy=None,
            open_timeout=PATIENCE,
        )
        return cls(socket, vsn or "1.0.0")

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._socket.close()
        await self._reader

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                async with self._news:
                    if isinstance(message, bytes):
                        self.binary.append(message)
                    else:
                        self.frames.append(_decode(message))
                    self._news.notify_all()
        async with self._news:
            self.close_code = self._socket.close_code
            self._news.notify_all()

    def pause(self) -> None:
        """Stops taking anything from the network, as a stalled client does."""
        self._socket.transport.pause_reading()

    def resume(self) -> None:
        self._socket.transport.resume_reading()

    # Sending

    def next_ref(self) -> str:
        self._ref += 1
        return str(self._ref)

    async def send_raw(self, message: str | bytes) -> None:
        await self._socket.send(message)

    async def send(
        self,
        topic: str,
        event: str,
        payload: Any,
        *,
        ref: str | None = None,
        join_ref: str | None = None,
    ) -> None:
        if self._vsn.startswith("2"):
            value: Any = [join_ref, ref, topic, event, payload]
        else:
            value = {"topic": topic, "event": event, "payload": payload, "ref": ref}
            value["join_ref"] = join_ref
        await self.send_raw(json.dumps(value))

    async def push(self, topic: str, event: str, payload: Any, join_ref: str | None = None) -> Any:
        """Sends with a new ref and returns the payload of the reply."""
        ref = self.next_ref()
        await self.send(topic, event, payload, ref=ref, join_ref=join_ref)
        frame = await self.until(lambda f: f.event == "phx_reply" and f.ref == ref)
        return frame.payload

    async def start_join(
        self, topic: str, *bindings: dict[str, Any], token: str | None = None, **config: Any
    ) -> str:
        """Sends a join and returns its ref, without waiting for the reply."""
        ref = self.next_ref()
        payload: dict[str, Any] = {"config": {"postgres_changes": list(bindings), **config}}
        if token:
            payload["access_token"] = token
        await self.send(f"realtime:{topic}", "phx_join", payload, ref=ref, join_ref=ref)
        return ref

    async def join(
        self, topic: str, *bindings: dict[str, Any], token: str | None = None, **config: Any
    ) -> str:
        """Joins and returns the join ref; the reply must be ok."""
        ref = await self.start_join(topic, *bindings, token=token, **config)
        frame = await self.reply(ref)
        assert frame.payload["status"] == "ok", frame
        return ref

    # Receiving

    async def until(
        self, wanted: Callable[[Frame], bool], *, start: int = 0, patience: float = PATIENCE
    ) -> Frame:
        """The first frame from number `start` on that is wanted; fails when the socket ends."""
        seen = start

        def found() -> Frame | None:
            nonlocal seen
            while seen < len(self.frames):
                seen += 1
                if wanted(self.frames[seen - 1]):
                    return self.frames[seen - 1]
            return None

        try:
            async with asyncio.timeout(patience), self._news:
                while (frame := found()) is None:
                    assert self.close_code is None, f"closed with {self.close_code}: {self.tail()}"
                    await self._news.wait()
                return frame
        except TimeoutError:
            raise AssertionError(f"it never came; the last frames were {self.tail()}") from None

    async def until_closed(self) -> int:
        """The close code, once the server has closed the socket."""
        async with asyncio.timeout(PATIENCE), self._news:
            while self.close_code is None:
                await self._news.wait()
            return self.close_code

    async def reply(self, ref: str) -> Frame:
        return await self.until(lambda f: f.event == "phx_reply" and f.ref == ref)

    async def system(self, topic: str, extension: str = "postgres_changes") -> Frame:
        return await self.until(
            lambda f: (
                f.topic == f"realtime:{topic}"
                and f.event == "system"
                and f.payload["extension"] == extension
            )
        )

    async def until_row(self, topic: str | None = None, **cells: Any) -> Frame:
        """The first change, in this topic if given, whose new row has these cells."""
        return await self.until(
            lambda f: (
                f.event == "postgres_changes"
                and topic in (None, f.topic)
                and cells.items() <= (f.data.get("record") or {}).items()
            )
        )

    def changes(self, topic: str | None = None) -> list[Frame]:
        return [
            frame
            for frame in self.frames
            if frame.event == "postgres_changes"
            and (topic is None or frame.topic == f"realtime:{topic}")
        ]

    def tail(self) -> list[str]:
        return [frame.text[:300] for frame in self.frames[-8:]]
