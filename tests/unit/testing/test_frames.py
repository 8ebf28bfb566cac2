"""Frames as a client writes and reads them agree with the server's own serializer."""

from __future__ import annotations

import json

from realtime.protocol import serializer
from realtime.protocol.serializer import BinaryBroadcast, Encoding, Version
from realtime.testing import frames


def test_the_server_reads_what_a_client_writes() -> None:
    text = frames.push("1", "2", "realtime:room", "phx_join", {"config": {}})
    message = serializer.decode(Version.V2, text)
    assert (message.join_ref, message.ref, message.topic) == ("1", "2", "realtime:room")
    data = frames.push_bytes("1", "2", "realtime:room", "said", b"\x00\xff")
    message = serializer.decode(Version.V2, data)
    assert message.payload == BinaryBroadcast("said", b"\x00\xff", Encoding.BINARY, {})


def test_a_client_reads_what_the_server_writes() -> None:
    frame = frames.read(json.dumps([None, "3", "realtime:room", "phx_reply", {"a": 1}]), None)
    assert (frame.ref, frame.event, frame.payload) == ("3", "phx_reply", {"a": 1})
    data = serializer.binary_broadcast("realtime:room", "said", b"\x00", Encoding.BINARY)
    frame = frames.read(None, data)
    assert (frame.topic, frame.event) == ("realtime:room", "broadcast")
    assert frame.payload == {"type": "broadcast", "event": "said", "payload": b"\x00"}
