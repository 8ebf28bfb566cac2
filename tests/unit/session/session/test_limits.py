"""What ends a socket: silence, large frames, floods; and quotas that connections share."""

from __future__ import annotations

from realtime.client_limits import Limits
from realtime.protocol.errors import CloseCode
from realtime.protocol.serializer import Version
from realtime.session.effects import (
    Close,
    Join,
    Leave,
    Note,
    SendBroadcast,
)
from realtime.session.quotas import SUBJECT, QuotaChain, Quotas, Rates
from realtime.session.session import SILENCE_SECONDS, Session
from tests.support.sessions import AT, frames, join_frame, joined, make, of, text


def test_a_frame_over_the_limit_closes_the_socket_with_its_code() -> None:
    session = make(frame_bytes=100)
    channel, _ = joined(session)
    # Forty characters of two bytes each would pass if characters were counted.
    effects = session.receive(text(["1", "2", "phoenix", "x", {}]) + "é" * 60, 0.0)
    assert of(Close, effects) == [Close(CloseCode.FRAME_TOO_LARGE)]
    assert of(Leave, effects) == [Leave(channel)]
    assert session.receive(join_frame(), 0.0) == []


def test_silence_closes_the_socket_and_any_frame_breaks_it() -> None:
    session = make()
    session.receive("garbage", 30.0)
    assert session.tick(SILENCE_SECONDS + 1, 0.0) == []
    assert session.due_in(40.0, 0.0) == 50.0
    effects = session.tick(30.0 + SILENCE_SECONDS, 0.0)
    assert of(Close, effects) == [Close(CloseCode.NO_HEARTBEAT)]


def test_a_flood_of_messages_ends_the_socket_and_of_bytes_too() -> None:
    session = make()
    beat = text([None, "1", "phoenix", "heartbeat", {}])
    for _ in range(100_000):
        effects = session.receive(beat, 0.0)
        if session.closing:
            break
    assert of(Close, effects) == [Close(CloseCode.TOO_MANY)]
    assert [note.limit for note in of(Note, effects)] == ["messages_per_second/connection"]
    session = make()
    large = "x" * 1_000_000
    for _ in range(100):
        effects = session.receive(large, 0.0)
        if session.closing:
            break
    assert of(Close, effects) == [Close(CloseCode.TOO_MANY)]
    assert [note.limit for note in of(Note, effects)] == ["bytes_per_second/connection"]


def test_what_a_client_may_do_for_hours_is_no_flood() -> None:
    session = make(payload_bytes=1_000)
    beat = text([None, "1", "phoenix", "heartbeat", {}])
    channel, _ = joined(session)
    said = text(["6", "9", channel.topic, "broadcast", {"type": "broadcast", "pad": "x" * 800}])
    for tenth in range(36_000):
        assert of(SendBroadcast, session.receive(said, tenth / 10))
        session.receive(beat, tenth / 10)
    assert not session.closing


def test_a_shared_quota_refuses_a_join_by_reply_and_names_its_scope() -> None:
    quotas = Quotas(Rates.of(Limits()))
    while not QuotaChain(quotas.address("a", 0.0)).join(0.0):
        pass
    session = Session(
        Version.V2, Limits(), lambda: AT, last_seen=0.0, shared=(quotas.address("a", 0.0),)
    )
    effects = session.receive(join_frame(), 0.0)
    assert frames(effects)[0][4]["response"]["reason"].startswith("ClientJoinRateLimitReached")
    assert [note.limit for note in of(Note, effects)] == ["joins_per_second/address"]
    assert not session.closing and not of(Join, effects)


def test_a_subject_s_broadcasts_are_counted_over_all_its_connections() -> None:
    quotas = Quotas(Rates.of(Limits(broadcast_burst=10)))
    said = 0
    for _ in range(100):
        session = make(broadcast_burst=10)
        channel, _ = joined(session)
        channel.quotas = QuotaChain(quotas.subject("ada", 0.0))
        frame = text(["6", "9", channel.topic, "broadcast", {"type": "broadcast", "event": "e"}])
        said += sum(bool(of(SendBroadcast, session.receive(frame, 0.0))) for _ in range(20))
    assert said == 10 * SUBJECT.broadcasts.burst
