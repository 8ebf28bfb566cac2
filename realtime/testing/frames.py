"""Frames as a client writes and reads them: serializer 2.0.0, from the other end.

Pure text and bytes; which frame means what is the client's to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

_KIND_PUSH, _KIND_BROADCAST = 3, 4

_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Frame:
    """What the server sent. The payload of a broadcast of bytes holds bytes."""

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: Any


def push(join_ref: str | None, ref: str, topic: str, event: str, payload: Any) -> str:
    """A message of a client."""
    return _encode([join_ref, ref, topic, event, payload]).decode()


def push_bytes(join_ref: str, ref: str, topic: str, event: str, payload: bytes) -> bytes:
    """A broadcast of bytes."""
    texts = [text.encode() for text in (join_ref, ref, topic, event)]
    return b"".join([bytes([_KIND_PUSH, *map(len, texts), 0, 0]), *texts, payload])


def read(text: str | None, data: bytes | None) -> Frame:
    """A frame of the server: one of the two."""
    if text is not None:
        return Frame(*_decode(text))
    assert data is not None and data[0] == _KIND_BROADCAST
    start = 5
    parts: list[str] = []
    for length in data[1:4]:
        parts.append(data[start : start + length].decode())
        start += length
    topic, event, _ = parts
    payload = {"type": "broadcast", "event": event, "payload": data[start:]}
    return Frame(None, None, topic, "broadcast", payload)
