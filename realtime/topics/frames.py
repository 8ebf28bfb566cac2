"""Frames of topics that many sockets share: broadcasts and presence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from realtime.protocol import serializer
from realtime.protocol.serializer import Encoding, FrameError, Version
from realtime.topics.broadcast import Broadcast


def of_cast(cast: Broadcast, version: Version) -> str | bytes | None:
    """The frame of a broadcast, or None where this serializer cannot carry it."""
    topic = f"realtime:{cast.topic}"
    if cast.event is None:
        return serializer.fanout(version, topic, "broadcast", cast.payload)
    meta = {"id": cast.id} if cast.id else None
    if cast.encoding == Encoding.JSON:
        payload = serializer.broadcast_payload(cast.event, cast.payload, meta)
        return serializer.fanout(version, topic, "broadcast", payload)
    return _binary(cast, version, topic, meta)


def of_replayed(cast: Broadcast, version: Version, join_ref: str | None) -> str | bytes | None:
    """The frame of a stored broadcast for one channel that has just joined, or None where this
    serializer cannot carry it."""
    topic = f"realtime:{cast.topic}"
    meta = {"replayed": True, "id": cast.id}
    if cast.encoding == Encoding.JSON:
        payload = serializer.broadcast_payload(cast.event or "", cast.payload, meta)
        return serializer.encode(
            version,
            join_ref=join_ref,
            ref=None,
            topic=topic,
            event="broadcast",
            payload=msgspec.Raw(payload),
        )
    return _binary(cast, version, topic, meta)


def of_presence(version: Version, topic: str, diff: bytes) -> str:
    """The frame of a `presence_diff` for everybody who watches a topic."""
    return serializer.fanout(version, topic, "presence_diff", diff)


def _binary(
    cast: Broadcast, version: Version, topic: str, meta: Mapping[str, Any] | None
) -> bytes | None:
    if version is Version.V1:
        return None
    try:
        return serializer.binary_broadcast(
            topic, cast.event or "", cast.payload, Encoding.BINARY, meta
        )
    except FrameError:
        # Names longer than a binary frame can carry: nobody who joined by one can be meant.
        return None
