"""A channel of a test's client: what came on it, and how to wait for it.

Owns the queue of what the test has not taken yet. Frames come from `client`, which has the socket.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from realtime.subscriptions.change import Change
from realtime.testing import change as changes
from realtime.testing.frames import Frame
from realtime.testing.preconditions import published_entry

PATIENCE = 10.0
"""Seconds that a test waits for what has to come, unless it says otherwise."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A broadcast. `payload` is a JSON value, or bytes."""

    event: str
    payload: Any


class Connection(Protocol):
    """What a channel needs of its client."""

    async def ask(self, channel: Channel, event: str, payload: Any) -> Any: ...
    async def settled(self) -> None: ...
    async def why_nothing(self, channel: Channel, model: Any) -> str: ...
    def forget(self, channel: Channel) -> None: ...


@dataclass(eq=False, slots=True)
class Channel:
    """A joined channel. `response` is the server's reply to the join.

    What came and was not taken yet waits here, in order: a wait for one thing leaves the others.
    """

    topic: str
    join_ref: str
    connection: Connection
    #: The head of the log when the channel joined.
    since: int = 0
    response: Mapping[str, Any] = field(default_factory=dict)
    #: Every `system` message, oldest first.
    system: list[Mapping[str, Any]] = field(default_factory=list)
    #: Why the channel has ended; empty while it has not.
    ended: str = ""
    _waiting: list[Change | Broadcast] = field(default_factory=list)
    _present: dict[str, dict[str, Any]] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    # --- what a test asks -----------------------------------------------------------------------

    async def next_change(
        self, model: Any = None, *, type: str | None = None, timeout: float = PATIENCE
    ) -> Change:
        """The next change of this model and type, of any where they are not given. `type` is
        "INSERT", "UPDATE" or "DELETE".

        Raises AssertionError, which says what came instead and why, when none comes in `timeout`
        seconds or the channel ends, and SetupError for a model that is not published.
        """
        if model is not None:
            model = published_entry(model).model

        def wanted(item: Change | Broadcast) -> bool:
            return (
                isinstance(item, Change)
                and (model is None or item.model is model)
                and type in (None, item.type)
            )

        named = "" if model is None else f" of {model._meta.label}"
        what = f"No {type or 'change'}{named} came"
        found = await self._take(wanted, what, timeout, model)
        assert isinstance(found, Change)
        return found

    async def next_broadcast(
        self, event: str | None = None, *, timeout: float = PATIENCE
    ) -> Broadcast:
        """The next broadcast of this event, of any where none is given. Raises AssertionError when
        none comes in `timeout` seconds."""

        def wanted(item: Change | Broadcast) -> bool:
            return isinstance(item, Broadcast) and event in (None, item.event)

        what = "No broadcast came" if event is None else f"No broadcast {event!r} came"
        found = await self._take(wanted, what, timeout)
        assert isinstance(found, Broadcast)
        return found

    async def nothing(self, seconds: float = 0.1) -> None:
        """Nothing waits here, and nothing comes: neither of what is committed by now nor in
        `seconds` after that has been handed out. Raises AssertionError with what did."""
        await self.connection.settled()
        deadline = time.monotonic() + seconds
        while not self._waiting and not self.ended:
            left = deadline - time.monotonic()
            if left <= 0 or not await self._more(left):
                break
        if self._waiting:
            raise AssertionError(f"{self._name} should get nothing, and got: {self._listed()}")

    async def broadcast(self, event: str, payload: Any) -> None:
        """Send a broadcast to the others in the topic; returns when the server has taken it.
        `payload` is a JSON object, or bytes. Raises Refused."""
        await self.connection.ask(
            self, "broadcast", {"type": "broadcast", "event": event, "payload": payload}
        )

    def presence(self) -> dict[str, list[dict[str, Any]]]:
        """Who is present, by the presence messages so far: for each key its metas."""
        return {key: list(metas.values()) for key, metas in self._present.items()}

    async def track(self, meta: Mapping[str, Any] | None = None) -> None:
        """Be present, with this meta. Raises Refused."""
        await self.connection.ask(
            self, "presence", {"type": "presence", "event": "track", "payload": dict(meta or {})}
        )

    async def untrack(self) -> None:
        """Be present no more."""
        await self.connection.ask(self, "presence", {"type": "presence", "event": "untrack"})

    async def until(
        self,
        condition: Callable[[], object],
        what: str = "the condition",
        *,
        timeout: float = PATIENCE,
    ) -> None:
        """Return when `condition()` is true; it is called after each frame. Raises AssertionError
        when it does not become true in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if self.ended or left <= 0 or not await self._more(left):
                why = f" {self.ended}" if self.ended else ""
                raise AssertionError(f"{self._name}: {what} did not come true.{why}")

    async def leave(self) -> None:
        """Leave; nothing comes from then on."""
        await self.connection.ask(self, "phx_leave", {})
        self.connection.forget(self)

    # --- what the client hands in ---------------------------------------------------------------

    def take(self, frame: Frame) -> None:
        """Take in a frame of this channel."""
        payload = frame.payload
        match frame.event:
            case "postgres_changes":
                self._waiting.append(changes.read(payload["data"]))
            case "broadcast":
                self._waiting.append(Broadcast(payload["event"], payload.get("payload")))
            case "presence_state":
                self._present = {key: _by_ref(entry) for key, entry in payload.items()}
            case "presence_diff":
                self._differs(payload)
            case "system":
                self.system.append(payload)
            case "phx_error" | "phx_close":
                self.end(f"The server ended the channel ({frame.event}).")
        self._news.set()

    def end(self, why: str) -> None:
        """Nothing comes any more."""
        self.ended = self.ended or why
        self._news.set()

    def _differs(self, diff: Mapping[str, Any]) -> None:
        for key, entry in diff.get("leaves", {}).items():
            metas = self._present.get(key, {})
            for ref in _by_ref(entry):
                metas.pop(ref, None)
            if not metas:
                self._present.pop(key, None)
        for key, entry in diff.get("joins", {}).items():
            self._present.setdefault(key, {}).update(_by_ref(entry))

    # --- waiting --------------------------------------------------------------------------------

    async def _take(
        self,
        wanted: Callable[[Change | Broadcast], bool],
        what: str,
        timeout: float,
        model: Any = None,
    ) -> Change | Broadcast:
        deadline = time.monotonic() + timeout
        while True:
            for place, item in enumerate(self._waiting):
                if wanted(item):
                    return self._waiting.pop(place)
            left = deadline - time.monotonic()
            if self.ended or left <= 0 or not await self._more(left):
                raise AssertionError(await self._missing(what, timeout, model))

    async def _more(self, seconds: float) -> bool:
        """Whether something came in this time."""
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _missing(self, what: str, timeout: float, model: Any) -> str:
        if self.ended:
            return f"{what} on {self._name}. {self.ended}"
        lines = [f"{what} on {self._name} in {timeout:g} seconds."]
        if self._waiting:
            lines.append(f"Came instead: {self._listed()}")
        lines += [f"The server said: {told['message']}" for told in self.system[-3:]]
        lines.append(await self.connection.why_nothing(self, model))
        return "\n".join(line for line in lines if line)

    def _listed(self) -> str:
        return ", ".join(map(repr, self._waiting))

    @property
    def _name(self) -> str:
        return self.topic


def _by_ref(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The metas of a key by their `phx_ref`, without the fields that the server adds."""
    return {
        meta["phx_ref"]: {name: value for name, value in meta.items() if name[:4] != "phx_"}
        for meta in entry["metas"]
    }
