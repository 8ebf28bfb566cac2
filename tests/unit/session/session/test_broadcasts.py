"""Broadcasts of clients: relayed, refused, and told to their sender."""

from __future__ import annotations

from typing import Any

from realtime.protocol.serializer import Encoding
from realtime.session.effects import (
    Leave,
    Note,
    SendBroadcast,
)
from tests.support.sessions import frames, joined, make, of, said, text


def told_to(effect: SendBroadcast) -> tuple[Any, ...]:
    return effect.channel, effect.event, effect.payload, effect.encoding


def test_a_text_broadcast_is_relayed_as_it_came() -> None:
    session = make()
    channel, _ = joined(session)
    frame = '["6","7","realtime:room","broadcast",{"n":12345678901234567890.10}]'
    (effect,) = session.receive(frame, 0.0)
    assert told_to(effect) == (channel, None, b'{"n":12345678901234567890.10}', Encoding.JSON)
    assert session.topic_events.relayed(effect, True) == []


def test_a_binary_broadcast_is_acknowledged_when_asked_for() -> None:
    session = make()
    channel, _ = joined(session, broadcast={"ack": True})
    data = b'\x03\x01\x01\x0d\x02\x00\x0167realtime:roomev{"a":1}'
    (effect,) = session.receive(data, 0.0)
    assert told_to(effect) == (channel, "ev", b'{"a":1}', Encoding.JSON)
    assert frames(session.topic_events.relayed(effect, True)) == [
        ["6", "7", "realtime:room", "phx_reply", {"status": "ok", "response": {}}]
    ]


def test_a_broadcast_that_finds_no_room_is_refused_by_reply() -> None:
    session = make()
    joined(session, broadcast={"ack": True})
    (effect,) = session.receive(text(["6", "7", "realtime:room", "broadcast", {}]), 0.0)
    (reply,) = frames(session.topic_events.relayed(effect, False))
    assert reply[4]["status"] == "error"
    assert reply[4]["response"]["reason"].startswith("MessageRateLimitReached: ")


def test_an_oversized_broadcast_is_refused_by_reply() -> None:
    session = make(payload_bytes=10)
    joined(session, broadcast={"ack": True})
    frame = text(["6", "7", "realtime:room", "broadcast", {"x": "y" * 20}])
    (reply,) = frames(session.receive(frame, 0.0))
    assert reply[4]["response"]["reason"] == "payload_size_exceeded"


def test_a_flood_of_broadcasts_is_refused_by_reply_and_the_channel_lives() -> None:
    session = make(broadcasts_per_second=1, broadcast_burst=2)
    channel, _ = joined(session)
    frame = text(["6", "7", "realtime:room", "broadcast", {}])
    results = [session.receive(frame, 0.0) for _ in range(3)]
    assert [len(of(SendBroadcast, effects)) for effects in results] == [1, 1, 0]
    assert of(Leave, results[2]) == []
    assert session.channels == {"realtime:room": channel}


def test_a_broadcast_that_asked_for_no_reply_gets_no_error_and_is_counted() -> None:
    session = make(payload_bytes=20, broadcasts_per_second=1, broadcast_burst=1)
    channel, _ = joined(session)
    (large,) = session.receive(said("8", x="y" * 30), 0.0)
    assert large == Note(
        "refused", "realtime:room: payload_size_exceeded", "payload_bytes/connection"
    )
    session = make(broadcasts_per_second=1, broadcast_burst=1)
    channel, _ = joined(session)
    (sent,) = session.receive(said("7"), 0.0)
    (over,) = session.receive(said("8"), 0.0)
    assert isinstance(over, Note) and over.limit == "broadcasts_per_second/connection"
    assert [type(effect) for effect in session.topic_events.relayed(sent, False)] == [Note]
    assert [type(effect) for effect in session.topic_events.not_stored(sent, "full")] == [Note]
    assert channel.topic in session.channels
