"""Outbox interfaces: objects that take the frames of one recipient. Pure."""

from __future__ import annotations

from typing import Any, Protocol

from realtime.delivery.frame import SharedFrame

# A frame for one socket alone, or a shared one.
Outgoing = str | bytes | SharedFrame


class Sink(Protocol):
    """Takes the frames of one recipient: `Outgoing` where that is a socket, and what its audience
    gets in their place where it is code of this process. `direct` is the scheduler that can write
    to it together with others; None while frames can only be put one by one."""

    @property
    def direct(self) -> Any: ...
    def put(self, frame: Any) -> None: ...


class Outbox(Sink, Protocol):
    """Takes the frames of one socket: by ASGI, or directly where the server is our own."""

    overflowed: bool

    @property
    def size(self) -> int: ...
    def takes_more(self) -> bool: ...
    async def writable(self) -> None: ...
    def close(self) -> None: ...
    async def stop(self) -> None: ...
