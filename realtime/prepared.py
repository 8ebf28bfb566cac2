"""A message for many sockets: encoded once, and its WebSocket frame made once.

Pure. A frame is made when the first socket asks for it, so servers that make their own cost nothing
here. It is not masked, not compressed and never fragmented, so the same bytes are good for every
client of a server (RFC 6455, section 5).
"""

from __future__ import annotations

from typing import Any, Protocol

_TEXT, _BINARY = 0x81, 0x82  # final, and nothing reserved is set
_SHORT, _MEDIUM = 125, 0xFFFF


def websocket_frame(message: str | bytes) -> bytes:
    """The frame a server sends for this message."""
    payload, head = (message.encode(), _TEXT) if isinstance(message, str) else (message, _BINARY)
    size = len(payload)
    if size <= _SHORT:
        return bytes((head, size)) + payload
    if size <= _MEDIUM:
        return bytes((head, 126)) + size.to_bytes(2) + payload
    return bytes((head, 127)) + size.to_bytes(8) + payload


class Prepared:
    """One message, shared by everybody it goes to. `made` is its frame as soon as there is one."""

    __slots__ = ("made", "message")

    def __init__(self, message: str | bytes) -> None:
        self.message = message
        self.made: bytes | None = None

    def __len__(self) -> int:
        return len(self.message)

    def frame(self) -> bytes:
        """The same bytes each time."""
        made = self.made
        if made is None:
            made = self.made = websocket_frame(self.message)
        return made


# What goes to a socket: for it alone, or shared.
Outgoing = str | bytes | Prepared


class Sink(Protocol):
    """Takes the frames of one member of something. `direct` is what writes to it together with
    others, and None while it can only be put to."""

    @property
    def direct(self) -> Any: ...
    def put(self, frame: Outgoing) -> None: ...


class Outlet(Sink, Protocol):
    """What takes the frames of one socket: an outbox, or a line of a server of ours."""

    overflowed: bool

    @property
    def size(self) -> int: ...
    async def writable(self) -> None: ...
    def close(self) -> None: ...
    async def stop(self) -> None: ...
