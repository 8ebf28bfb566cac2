"""How a change is framed for its recipient. Pure: no Django, no I/O."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from realtime.protocol import serializer
from realtime.protocol.serializer import Version


class ChangeFrame(enum.Enum):
    """Which frame a channel gets a change in. The way it joined decides."""

    BINDINGS = "bindings"
    """An event `postgres_changes`, with the ids of the bindings that match."""
    BARE = "bare"
    """An event named after the change (INSERT, UPDATE, DELETE) whose payload is the data alone:
    for clients from before there were bindings, which asked for a table by the topic's name."""
    VALUE = "value"
    """No frame: code of this process gets the change itself."""

    def encode(self, version: Version, topic: str, op: str, ids: Sequence[int], data: bytes) -> str:
        """The frame of a change for all recipients that get it alike. `op` is the operation that
        they see, `data` its data object as JSON. Raises ValueError for VALUE, which has no frame.
        """
        if self is ChangeFrame.VALUE:
            raise ValueError("a change that is handed over as a value has no frame")
        if self is ChangeFrame.BARE:
            return serializer.fanout(version, topic, op, data)
        payload = serializer.changes_payload(ids, data)
        return serializer.fanout(version, topic, "postgres_changes", payload)
