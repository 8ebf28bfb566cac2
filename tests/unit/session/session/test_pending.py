"""Messages that come before their join or their token is answered."""

from __future__ import annotations

from typing import Any

from realtime.session.channel import Channel
from realtime.session.effects import (
    Effect,
    Join,
    Renew,
    SendBroadcast,
    Track,
)
from realtime.session.session import MOST_BYTES, MOST_PENDING, Session
from tests.support.sessions import answer, frames, join_frame, joined, make, of, said, text


def joining(session: Session, **config: Any) -> Channel:
    (effect,) = of(Join, session.receive(join_frame(**config), 0.0))
    return effect.channel


def test_what_follows_a_join_takes_effect_after_it_in_order() -> None:
    session = make()
    channel = joining(session, broadcast={"ack": True})
    for ref in ("7", "8"):
        assert session.receive(said(ref, event="broadcast"), 0.0) == []
    track = text(["6", "9", "realtime:room", "presence", {"event": "track", "payload": {"n": 1}}])
    assert session.receive(track, 0.0) == []
    assert session.receive(text(["6", "10", "realtime:room", "phx_leave", {}]), 0.0) == []
    assert frames(answer(session, channel))[0][3] == "phx_reply"
    effects = session.release(channel)
    assert [effect.message.ref for effect in of(SendBroadcast, effects)] == ["7", "8"]
    assert [effect.message.ref for effect in of(Track, effects)] == ["9"]
    assert [frame[3] for frame in frames(effects)] == ["phx_reply", "phx_close"]
    assert session.channels == {}
    assert session.release(channel) == []


def test_what_follows_a_join_that_is_refused_is_refused_too() -> None:
    session = make()
    channel = joining(session, broadcast={"ack": True})
    session.receive(said("7"), 0.0)
    reply, unmatched = frames(session.refused(channel, "no"))
    assert reply[1] == "6" and reply[4]["status"] == "error"
    assert unmatched[1] == "7" and unmatched[4]["response"]["reason"] == "unmatched topic"


def test_a_leave_behind_a_join_that_is_refused_is_answered_as_any_leave() -> None:
    session = make()
    channel = joining(session, broadcast={"ack": True})
    session.receive(said("7"), 0.0)
    assert session.receive(text(["6", "8", "realtime:room", "phx_leave", {}]), 0.0) == []
    replies = frames(session.refused(channel, "no"))
    assert [(frame[1], frame[4]["status"]) for frame in replies] == [
        ("6", "error"),
        ("7", "error"),
        ("8", "ok"),
    ]


def test_a_socket_holds_no_more_than_so_many_messages() -> None:
    session = make()
    joining(session, broadcast={"ack": True})
    held = [session.receive(said(str(ref)), 0.0) for ref in range(MOST_PENDING + 1)]
    assert not any(held[:-1])
    (reply,) = frames(held[-1])
    assert reply[4]["response"]["reason"].startswith("MessageRateLimitReached")


def test_a_socket_holds_no_more_than_so_many_bytes_of_messages_and_joins() -> None:
    session = make(frame_bytes=None, payload_bytes=None)
    joining(session, broadcast={"ack": True})
    large = "x" * (MOST_BYTES // 3)
    assert [session.receive(said(ref, x=large), 0.0) for ref in ("7", "8")] == [[], []]
    assert frames(session.receive(said("9", x=large), 0.0))
    (reply,) = frames(session.receive(join_frame("realtime:b", "10", x=large), 0.0))
    assert reply[4]["response"]["reason"] == "ChannelRateLimitReached: Too many channels"


def renewed(session: Session, channel: Channel) -> list[Effect]:
    return session.renewed(channel, problems=[], expires_at=None, subject="s")


def token_frame(ref: str, token: str) -> str:
    return text(["6", ref, "realtime:room", "access_token", {"access_token": token}])


def test_what_follows_a_token_takes_effect_after_it() -> None:
    session = make()
    channel, _ = joined(session, broadcast={"ack": True})
    assert of(SendBroadcast, session.receive(said("7"), 0.0))
    assert of(Renew, session.receive(token_frame("8", "new"), 0.0))
    assert session.receive(said("9"), 0.0) == []
    # Yet another one comes: what waits goes by the last.
    assert of(Renew, session.receive(token_frame("10", "newer"), 0.0))
    assert session.receive(said("11"), 0.0) == []
    assert session.receive(text(["6", "12", "realtime:room", "phx_leave", {}]), 0.0) == []
    assert of(SendBroadcast, renewed(session, channel)) == []
    effects = session.release(channel)
    assert [effect.message.ref for effect in of(SendBroadcast, effects)] == ["9", "11"]
    assert [frame[3] for frame in frames(effects)] == ["phx_reply", "phx_close"]


def test_what_follows_a_token_that_is_refused_is_refused_too() -> None:
    session = make()
    channel, _ = joined(session, broadcast={"ack": True})
    session.receive(token_frame("8", "new"), 0.0)
    session.receive(said("9"), 0.0)
    system, error, unmatched = frames(session.ended(channel, "Token has expired 3 seconds ago"))
    assert (system[3], error[3]) == ("system", "phx_error")
    assert unmatched[1] == "9" and unmatched[4]["response"]["reason"] == "unmatched topic"


def test_what_waits_for_a_join_that_another_replaces_is_answered() -> None:
    session = make()
    joining(session, broadcast={"ack": True})
    session.receive(said("7"), 0.0)
    replies = frames(session.receive(join_frame(ref="8"), 0.0))
    assert [(frame[1], frame[3]) for frame in replies] == [("7", "phx_reply"), ("6", "phx_close")]


def test_what_has_waited_no_longer_counts_against_what_a_socket_holds() -> None:
    session = make(frame_bytes=None, payload_bytes=None)
    channel, _ = joined(session, broadcast={"ack": True})
    large = "x" * (MOST_BYTES // 3)
    for number in range(8):
        session.receive(token_frame("8", f"new {number}"), 0.0)
        assert session.receive(said("9", x=large), 0.0) == []
        renewed(session, channel)
        assert of(SendBroadcast, session.release(channel))


def test_the_size_of_a_socket_counts_what_waits_until_it_is_dealt_with() -> None:
    session = make()
    channel = joining(session, broadcast={"ack": True})
    before = session.size
    message, leave = said("7", x="x" * 1_000), text(["6", "8", "realtime:room", "phx_leave", {}])
    session.receive(message, 0.0)
    assert session.size == before + len(message)
    session.receive(leave, 0.0)
    assert session.size == before + len(message) + len(leave)
    session.refused(channel, "no")
    assert session.size == 0


def test_what_waits_for_a_token_counts_until_the_token_has_taken_effect() -> None:
    session = make()
    channel, _ = joined(session)
    session.receive(token_frame("8", "new"), 0.0)
    before = session.size
    session.receive(said("9", x="x" * 1_000), 0.0)
    assert session.size > before + 1_000
    renewed(session, channel)
    session.release(channel)
    assert session.size == before


def test_leaves_have_no_more_bytes_than_other_messages_that_wait() -> None:
    session = make(frame_bytes=None, payload_bytes=None)
    joining(session, broadcast={"ack": True})
    session.receive(said("7"), 0.0)
    leave = {"x": "x" * MOST_BYTES}
    (reply,) = frames(session.receive(text(["6", "8", "realtime:room", "phx_leave", leave]), 0.0))
    assert reply[4]["response"]["reason"].startswith("MessageRateLimitReached")
    # Any number of messages leaves room for a small one.
    for ref in range(MOST_PENDING):
        session.receive(said(str(ref)), 0.0)
    assert session.receive(text(["6", "8", "realtime:room", "phx_leave", {}]), 0.0) == []


def test_a_heartbeat_is_answered_while_a_channel_is_joining() -> None:
    session = make()
    joining(session)
    session.receive(said("7"), 0.0)
    (reply,) = frames(session.receive(text([None, "8", "phoenix", "heartbeat", {}]), 0.0))
    assert reply[4]["status"] == "ok"
