"""Frames of topics that many sockets share: broadcasts and presence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from realtime.protocol import serializer
from realtime.protocol.serializer import Encoding, FrameError, Version
from realtime.topics.broadcast import Broadcast


def of_broadcast(message: Broadcast, version: Version) -> str | bytes | None:
    """The frame of a broadcast, or None where this serializer cannot carry it."""
    topic = f"realtime:{message.topic}"
    if message.event is None:
        return serializer.fanout(version, topic, "broadcast", message.payload)
    meta = _meta(message)
    if message.encoding == Encoding.JSON:
        payload = serializer.broadcast_payload(message.event, message.payload, meta)
        return serializer.fanout(version, topic, "broadcast", payload)
    return _binary(message, version, topic, meta)


def of_replayed(message: Broadcast, version: Version, join_ref: str | None) -> str | bytes | None:
    """The frame of a stored broadcast for one channel that has just joined, or None where this
    serializer cannot carry it."""
    topic = f"realtime:{message.topic}"
    meta = {"replayed": True, **_meta(message)}
    if message.encoding == Encoding.JSON:
        payload = serializer.broadcast_payload(message.event or "", message.payload, meta)
        return serializer.encode(
            version,
            join_ref=join_ref,
            ref=None,
            topic=topic,
            event="broadcast",
            payload=msgspec.Raw(payload),
        )
    return _binary(message, version, topic, meta)


def of_presence(version: Version, topic: str, diff: bytes) -> str:
    """The frame of a `presence_diff` for every channel that shows presence of a topic."""
    return serializer.fanout(version, topic, "presence_diff", diff)


def _meta(message: Broadcast) -> dict[str, Any]:
    names = {"id": message.id, "user_id": message.user_id}
    return {name: value for name, value in names.items() if value}


def _binary(
    message: Broadcast, version: Version, topic: str, meta: Mapping[str, Any] | None
) -> bytes | None:
    if version is Version.V1:
        return None
    try:
        return serializer.binary_broadcast(
            topic, message.event or "", message.payload, Encoding.BINARY, meta
        )
    except FrameError:
        if meta and "user_id" in meta:
            # A user id that is too long for a binary frame is left out.
            without = {name: value for name, value in meta.items() if name != "user_id"}
            return _binary(message, version, topic, without)
        # Names too long for a binary frame: no client can have joined such a topic.
        return None
