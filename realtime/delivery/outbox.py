"""The interfaces of what takes the frames of one socket. Pure."""

from __future__ import annotations

from typing import Any, Protocol

from realtime.delivery.frame import SharedFrame

# What goes to a socket: for it alone, or shared.
Outgoing = str | bytes | SharedFrame


class Sink(Protocol):
    """Takes the frames of one member of something. `direct` is what writes to it together with
    others, and None while it can only be put to."""

    @property
    def direct(self) -> Any: ...
    def put(self, frame: Outgoing) -> None: ...


class Outbox(Sink, Protocol):
    """What takes the frames of one socket: an outbox, or a line of a server of ours."""

    overflowed: bool

    @property
    def size(self) -> int: ...
    async def writable(self) -> None: ...
    def close(self) -> None: ...
    async def stop(self) -> None: ...
