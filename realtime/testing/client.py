"""A client in the test's process: one socket of the real application, without a network."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Protocol
from urllib.parse import urlencode

from channels.routing import URLRouter

from realtime.protocol.errors import CloseCode
from realtime.protocol.serializer import PREFIX
from realtime.routing import websocket_urlpatterns
from realtime.testing import frames
from realtime.testing.channel import PATIENCE, Channel
from realtime.testing.frames import Frame
from realtime.testing.preconditions import SetupError, published_entry

_PATH = "/realtime/v1/websocket"
_HEARTBEAT_SECONDS = 20.0


class Refused(AssertionError):
    """The server refused a connection, a join or a message. `reason` is its text, `hint` what it
    said may help, `code` the close code of a refused connection."""

    def __init__(self, what: str, reason: str, hint: str = "", code: int | None = None) -> None:
        super().__init__(f"{what}: {reason}{f' ({hint})' if hint else ''}")
        self.reason = reason
        self.hint = hint
        self.code = code


class Server(Protocol):
    """What a client needs of the server it is connected to."""

    async def settled(self) -> None: ...
    async def why_nothing(self, asker: Any, channel: Channel, model: Any) -> str: ...


class Client:
    """One socket. Made by `realtime_client(...)`. `asker` is its user, for explanations."""

    def __init__(self, server: Server, asker: Any) -> None:
        self._server = server
        self._asker = asker
        self._refs = map(str, count(1))
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._replies: dict[str, asyncio.Future[Any]] = {}
        self._channels: dict[str, Channel] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._application: asyncio.Task[None] | None = None
        #: The code that the server closed the socket with; None while it is open.
        self.close_code: int | None = None

    async def connect(self, token: str | None, headers: Mapping[str, str] | None = None) -> None:
        """Open the socket. Raises Refused."""
        query = {"vsn": "2.0.0", **({} if token is None else {"apikey": token})}
        scope = {
            "type": "websocket",
            "path": _PATH,
            "query_string": urlencode(query).encode(),
            "headers": [
                (name.lower().encode(), value.encode()) for name, value in (headers or {}).items()
            ],
            "subprotocols": [],
        }
        routes: Any = websocket_urlpatterns
        application: Any = URLRouter(routes)
        running = application(scope, self._incoming.get, self._outgoing.put)
        # In a context of its own: a server's connection has no context variables of the test.
        self._application = asyncio.get_running_loop().create_task(
            running, name="rowcast-testing-socket", context=contextvars.Context()
        )
        self._incoming.put_nowait({"type": "websocket.connect"})
        async with asyncio.timeout(PATIENCE):
            answer = await self._outgoing.get()
        if answer["type"] != "websocket.accept":
            await self._end_application()
            code = int(answer.get("code") or 1000)
            raise Refused("The server refuses the connection", answer.get("reason", ""), code=code)
        for work in (self._read(), self._beat()):
            self._tasks.append(asyncio.create_task(work, name="rowcast-testing-client"))

    async def join(
        self,
        topic: str,
        changes: Iterable[Any] = (),
        private: bool = False,
        *,
        presence_key: str = "",
    ) -> Channel:
        """Join a topic, with or without `realtime:` before its name. `changes` are model classes,
        of which every change is asked for, or bindings as clients send them, such as {"table":
        "app_task", "filter": "done=eq.false"}; a `table` may be a model class.

        Returns when changes flow. Raises Refused where the server refuses the join or a binding,
        and SetupError for a model that is not published.
        """
        bindings = [_binding(item) for item in _listed(changes)]
        # What is committed by now is handed out before: the channel gets what comes after.
        await self._server.settled()
        name = topic if topic.startswith(PREFIX) else PREFIX + topic
        if name in self._channels:
            raise SetupError(f"This client has joined {topic!r} already; leave() it first.")
        ref = next(self._refs)
        channel = self._channels[name] = Channel(name, ref, self)
        config = {
            "postgres_changes": bindings,
            "broadcast": {"ack": True},
            "presence": {"enabled": True, "key": presence_key},
            "private": private,
        }
        try:
            channel.response = await self.ask(channel, "phx_join", {"config": config}, ref)
            channel.since = channel.response.get("seq", 0)
            if bindings:
                await self._subscribed(channel)
        except BaseException:
            self._channels.pop(name, None)
            raise
        return channel

    async def close(self) -> None:
        """Close the socket, and wait for the server to be done with it."""
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self._end_application()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for channel in self._channels.values():
            channel.end("The client was closed.")
        self._channels.clear()

    async def closed(self, timeout: float = PATIENCE) -> int:
        """Wait until the server closes the socket; its close code. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            await asyncio.shield(self._tasks[0])
        assert self.close_code is not None
        return self.close_code

    # --- for channels ---------------------------------------------------------------------------

    async def ask(
        self, channel: Channel, event: str, payload: Any, ref: str | None = None
    ) -> Mapping[str, Any]:
        """Send a message of a channel and wait for the reply. Raises Refused."""
        if channel.ended:
            raise Refused(f"{event} on {channel.topic}", channel.ended)
        ref = ref or next(self._refs)
        body = payload.get("payload") if event == "broadcast" else None
        if isinstance(body, bytes | bytearray | memoryview):
            data = frames.push_bytes(
                channel.join_ref, ref, channel.topic, payload["event"], bytes(body)
            )
            message: dict[str, Any] = {"type": "websocket.receive", "bytes": data}
        else:
            text = frames.push(channel.join_ref, ref, channel.topic, event, payload)
            message = {"type": "websocket.receive", "text": text}
        answer = await self._answered(ref, message)
        if answer["status"] != "ok":
            response = answer["response"]
            raise Refused(
                f"The server refuses {_WORDS.get(event, event)} on {channel.topic}",
                str(response.get("reason", response)),
                str(response.get("hint", "")),
            )
        response = answer["response"]
        return response if isinstance(response, Mapping) else {}

    async def settled(self) -> None:
        """Return when all that is committed has been handed out, and this client has taken it."""
        await self._server.settled()
        # Frames of a socket keep their order: what was sent before the answer has come, too.
        ref = next(self._refs)
        text = frames.push(None, ref, "phoenix", "heartbeat", {})
        await self._answered(ref, {"type": "websocket.receive", "text": text})

    async def why_nothing(self, channel: Channel, model: Any) -> str:
        """What may help with a change that did not come."""
        return await self._server.why_nothing(self._asker, channel, model)

    def forget(self, channel: Channel) -> None:
        """The channel has left."""
        self._channels.pop(channel.topic, None)
        channel.end("The client has left the channel.")

    # --- the socket -----------------------------------------------------------------------------

    async def _answered(self, ref: str, message: dict[str, Any]) -> Any:
        """Send a message and wait for the reply to this ref. Raises Refused and TimeoutError."""
        if self.close_code is not None:
            why = f"the socket was closed with {self.close_code}"
            raise Refused("The server does not answer", why, code=self.close_code)
        reply = self._replies[ref] = asyncio.get_running_loop().create_future()
        self._incoming.put_nowait(message)
        try:
            async with asyncio.timeout(PATIENCE):
                return await reply
        finally:
            self._replies.pop(ref, None)

    async def _subscribed(self, channel: Channel) -> None:
        """Return when changes flow. Raises Refused for a binding that is refused."""

        def told() -> list[Mapping[str, Any]]:
            return [m for m in channel.system if m["extension"] == "postgres_changes"]

        await channel.until(told, "the subscription")
        first = told()[0]
        if first["status"] != "ok":
            what = f"The server refuses a binding of {channel.topic}"
            raise Refused(what, first["message"], first.get("hint", ""))

    async def _read(self) -> None:
        while True:
            output = await self._outgoing.get()
            if output["type"] == "websocket.close":
                self._closed(int(output.get("code") or 1000))
                return
            frame = frames.read(output.get("text"), output.get("bytes"))
            if frame.event == "phx_reply":
                self._answer(frame)
                continue
            channel = self._channels.get(frame.topic)
            if channel is not None and frame.join_ref in (None, channel.join_ref):
                channel.take(frame)

    def _answer(self, frame: Frame) -> None:
        reply = self._replies.get(frame.ref or "")
        if reply is not None and not reply.done():
            reply.set_result(frame.payload)

    def _closed(self, code: int) -> None:
        self.close_code = code
        meaning = f": {CloseCode(code).meaning}" if code in set(CloseCode) else ""
        why = f"The server closed the socket with {code}{meaning}."
        for channel in self._channels.values():
            channel.end(why)
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(Refused("The server did not answer", why, code=code))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            text = frames.push(None, next(self._refs), "phoenix", "heartbeat", {})
            self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    async def _end_application(self) -> None:
        if self._application is None:
            return
        done, _ = await asyncio.wait({self._application}, timeout=PATIENCE)
        if not done:
            self._application.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._application
            return
        self._application.result()


_WORDS = {"phx_join": "the join", "broadcast": "the broadcast", "presence": "the presence"}


def _listed(changes: Any) -> list[Any]:
    if isinstance(changes, Mapping | type | str):
        raise SetupError(f"changes is a list, such as changes=[{changes!r}].")
    return list(changes)


def _binding(item: Any) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        item = {"table": item}
    binding = {"event": "*", **item}
    if isinstance(binding.get("table"), type):
        entry = published_entry(binding["table"])
        binding |= {"schema": entry.schema, "table": entry.table}
    binding.setdefault("schema", "public")
    return binding
