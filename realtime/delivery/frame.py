"""A message for many sockets: encoded once, framed once, and compressed once.

Pure. The WebSocket frame is made when the first socket needs it, and never under a server that
makes its own. It is neither masked nor fragmented, so the same bytes are valid for every client
(RFC 6455, section 5). The compressed frame refers to no earlier message ("no context takeover", RFC
7692, section 7.1.1), so the same bytes are valid for every client that agreed to that.
"""

from __future__ import annotations

import zlib

_TEXT, _BINARY = 0x81, 0x82  # final, and nothing reserved is set
_COMPRESSED = 0x40
_SHORT, _MEDIUM = 125, 0xFFFF

#: How far back compressed data refers, as a power of two. A client must allow this window.
WINDOW_BITS = 12
# Below this many bytes compression saves almost nothing.
_WORTHWHILE = 256
_END_OF_BLOCK = b"\x00\x00\xff\xff"


def websocket_frame(message: str | bytes) -> bytes:
    """The WebSocket frame of a server for this message."""
    if isinstance(message, str):
        return _frame(_TEXT, message.encode())
    return _frame(_BINARY, message)


def compressed_frame(message: str | bytes) -> bytes | None:
    """The same frame, compressed; None where compression would save nothing."""
    payload, head = (message.encode(), _TEXT) if isinstance(message, str) else (message, _BINARY)
    if len(payload) < _WORTHWHILE:
        return None
    compressor = zlib.compressobj(wbits=-WINDOW_BITS)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    data = data.removesuffix(_END_OF_BLOCK)
    return _frame(head | _COMPRESSED, data) if len(data) < len(payload) else None


def _frame(head: int, payload: bytes) -> bytes:
    size = len(payload)
    if size <= _SHORT:
        return bytes((head, size)) + payload
    if size <= _MEDIUM:
        return bytes((head, 126)) + size.to_bytes(2) + payload
    return bytes((head, 127)) + size.to_bytes(8) + payload


class SharedFrame:
    """One message, shared by all its recipients. `made` is its frame, once there is one."""

    __slots__ = ("_compressed", "made", "message")

    def __init__(self, message: str | bytes) -> None:
        self.message = message
        self.made: bytes | None = None
        self._compressed: bytes | None = None

    @classmethod
    def made_of(cls, plain: bytes, compressed: bytes | None) -> SharedFrame:
        """A frame from bytes made before. `compressed` is None where no recipient takes it."""
        made = cls(b"")
        made.made, made._compressed = plain, compressed
        return made

    def __len__(self) -> int:
        return len(self.message)

    def frame(self) -> bytes:
        """The plain frame: the same bytes each time."""
        made = self.made
        if made is None:
            made = self.made = websocket_frame(self.message)
        return made

    def form(self, compressed: bool) -> bytes:
        """The frame for a socket with or without compression: the same bytes each time."""
        if not compressed:
            return self.frame()
        data = self._compressed
        if data is None:
            data = self._compressed = compressed_frame(self.message) or self.frame()
        return data
