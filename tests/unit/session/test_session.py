"""The session: what each message of a client leads to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from realtime.client_limits import Limits
from realtime.event_log.position import Position
from realtime.protocol.errors import CloseCode
from realtime.protocol.serializer import Encoding, Version
from realtime.session.channel import Channel, Phase
from realtime.session.effects import (
    Close,
    Effect,
    Join,
    Leave,
    Note,
    Renew,
    Send,
    SendBroadcast,
    Track,
)
from realtime.session.quotas import SUBJECT, QuotaChain, Quotas, Rates
from realtime.session.session import MOST_BYTES, MOST_PENDING, SILENCE_SECONDS, Session
from realtime.topics.rights import ALL

AT = Position("e1", 41)


def make(version: Version = Version.V2, private_only: bool = False, **limits: Any) -> Session:
    return Session(version, Limits(**limits), lambda: AT, last_seen=0.0, private_only=private_only)


def text(frame: list[Any]) -> str:
    return json.dumps(frame)


def join_frame(topic: str = "realtime:room", ref: str = "6", **config: Any) -> str:
    return text([ref, ref, topic, "phx_join", {"config": config}])


def frames(effects: list[Effect]) -> list[Any]:
    return [json.loads(effect.frame) for effect in effects if isinstance(effect, Send)]


def of(kind: type, effects: list[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def told_to(effect: SendBroadcast) -> tuple[Any, ...]:
    return effect.channel, effect.event, effect.payload, effect.encoding


def joined(session: Session, **kwargs: Any) -> tuple[Channel, list[Effect]]:
    (join,) = of(Join, session.receive(join_frame(**kwargs), 0.0))
    return join.channel, answer(session, join.channel)


def answer(session: Session, channel: Channel, problems: Sequence[str] = ()) -> list[Effect]:
    return session.joined(channel, problems=problems, expires_at=None, at=AT, rights=ALL)


def test_a_join_is_answered_before_anything_else_is_pushed() -> None:
    session = make()
    change = {"event": "INSERT", "schema": "public", "table": "t", "filter": "id=eq.1"}
    _, effects = joined(session, postgres_changes=[change], presence={"enabled": True})
    reply, presence, system = frames(effects)
    assert reply[:4] == ["6", "6", "realtime:room", "phx_reply"]
    echoed = reply[4]["response"]["postgres_changes"]
    assert [{k: v for k, v in item.items() if k != "id"} for item in echoed] == [change]
    assert all(type(item["id"]) is int for item in echoed)
    assert reply[4]["response"]["seq"] == 41
    assert reply[4]["response"]["epoch"] == "e1"
    assert presence == ["6", None, "realtime:room", "presence_state", {}]
    assert system[3:] == [
        "system",
        {
            "status": "ok",
            "message": "Subscribed to PostgreSQL",
            "extension": "postgres_changes",
            "channel": "room",
        },
    ]


def test_a_join_without_bindings_is_answered_with_an_empty_list_and_no_system_message() -> None:
    _, effects = joined(make())
    (reply,) = frames(effects)
    assert reply[4]["response"]["postgres_changes"] == []


def test_a_binding_that_can_never_deliver_is_told_while_the_join_succeeds() -> None:
    session = make()
    (join,) = of(Join, session.receive(join_frame(postgres_changes=[{"table": "t"}]), 0.0))
    effects = session.joined(
        join.channel, problems=["no such table"], expires_at=None, at=AT, rights=ALL
    )
    reply, system = frames(effects)
    assert reply[4]["status"] == "ok"
    assert system[4]["status"] == "error"
    assert system[4]["message"] == "no such table"


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("room", "unmatched topic"),
        ("realtime:", "TopicNameRequired: You must provide a topic name"),
    ],
)
def test_a_topic_that_is_none_is_refused(topic: str, reason: str) -> None:
    (reply,) = frames(make().receive(join_frame(topic), 0.0))
    assert reply[4] == {"status": "error", "response": {"reason": reason}}


def test_a_second_join_ends_the_first_under_its_own_join_ref() -> None:
    session = make()
    old, _ = joined(session)
    effects = session.receive(join_frame(ref="9"), 0.0)
    assert [effect.channel for effect in of(Leave, effects)] == [old]
    (close,) = frames(effects)
    assert close == ["6", "6", "realtime:room", "phx_close", {}]
    (join,) = of(Join, effects)
    assert join.channel.join_ref == "9"


def test_a_second_join_in_v1_ends_the_first_silently() -> None:
    session = make(Version.V1)
    message = {"topic": "realtime:a", "event": "phx_join", "payload": {}, "ref": "1"}
    session.receive(json.dumps(message), 0.0)
    effects = session.receive(json.dumps({**message, "ref": "2"}), 0.0)
    assert frames(effects) == []
    assert len(of(Leave, effects)) == 1


def test_a_leave_that_comes_after_a_rejoin_leaves_the_new_channel_alone() -> None:
    session = make()
    joined(session)
    new, _ = joined(session, ref="9")
    effects = session.receive(text(["6", "7", "realtime:room", "phx_leave", {}]), 0.0)
    assert of(Leave, effects) == []
    assert session.channels["realtime:room"] is new
    assert frames(effects) == [
        ["6", "7", "realtime:room", "phx_reply", {"status": "ok", "response": {}}]
    ]


def test_a_leave_unsubscribes_before_it_is_answered() -> None:
    session = make()
    channel, _ = joined(session)
    effects = session.receive(text(["6", "7", "realtime:room", "phx_leave", {}]), 0.0)
    assert effects[0] == Leave(channel)
    reply, close = frames(effects)
    assert reply == ["6", "7", "realtime:room", "phx_reply", {"status": "ok", "response": {}}]
    assert close == ["6", "6", "realtime:room", "phx_close", {}]


def test_leaving_what_was_never_joined_is_ok() -> None:
    (reply,) = frames(make().receive(text(["1", "2", "realtime:x", "phx_leave", {}]), 0.0))
    assert reply[4]["status"] == "ok"


def test_a_join_that_was_left_meanwhile_is_undone() -> None:
    session = make()
    (join,) = of(Join, session.receive(join_frame(), 0.0))
    session.receive(text(["6", "7", "realtime:room", "phx_leave", {}]), 0.0)
    effects = session.joined(join.channel, problems=[], expires_at=None, at=AT, rights=ALL)
    assert effects == [Leave(join.channel)]
    assert session.refused(join.channel, "late") == []


def test_a_refused_join_is_told_why_and_can_be_tried_again() -> None:
    session = make()
    (join,) = of(Join, session.receive(join_frame(), 0.0))
    (reply,) = frames(session.refused(join.channel, "Unauthorized: no"))
    assert reply[4] == {"status": "error", "response": {"reason": "Unauthorized: no"}}
    assert of(Join, session.receive(join_frame(ref="8"), 1.0))


def test_a_heartbeat_is_answered_with_the_head() -> None:
    (reply,) = frames(make().receive(text([None, "11", "phoenix", "heartbeat", {}]), 0.0))
    response = {"status": "ok", "response": {"epoch": "e1", "seq": 41}}
    assert reply == [None, "11", "phoenix", "phx_reply", response]


def test_a_heartbeat_names_no_place_that_the_socket_has_not_been_served_up_to() -> None:
    session = make()
    heartbeat = text([None, "11", "phoenix", "heartbeat", {}])
    session.receive(join_frame(ref="6", postgres_changes=[{"table": "t", "schema": "public"}]), 0.0)
    (reply,) = frames(session.receive(heartbeat, 0.0))
    assert reply[4] == {"status": "ok", "response": {}}
    session = make()
    session.position = lambda: None
    (reply,) = frames(session.receive(heartbeat, 0.0))
    assert reply[4] == {"status": "ok", "response": {}}


def test_a_heartbeat_without_ref_is_answered_without_ref() -> None:
    session = make(Version.V1)
    message = {"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": None}
    (reply,) = frames(session.receive(json.dumps(message), 0.0))
    assert reply["ref"] is None
    assert "join_ref" not in reply


def test_a_message_to_a_topic_that_was_not_joined_is_refused() -> None:
    (reply,) = frames(make().receive(text(["1", "2", "realtime:x", "broadcast", {}]), 0.0))
    assert reply[4] == {"status": "error", "response": {"reason": "unmatched topic"}}


def test_a_stale_or_missing_join_ref_is_tolerated_on_a_push() -> None:
    session = make()
    joined(session, broadcast={"ack": True})
    for join_ref in ("1", None):
        frame = text([join_ref, "7", "realtime:room", "broadcast", {"event": "x"}])
        assert of(SendBroadcast, session.receive(frame, 0.0))


@pytest.mark.parametrize(
    "data",
    ["", "{", "null", "[]", '{"topic":1}', "[" * 100_000, b"\x07", b"\x03\xff", "[1,2,3,4,5]"],
)
def test_a_bad_frame_is_answered_and_ends_nothing(data: str | bytes) -> None:
    session = make()
    channel, _ = joined(session)
    effects = session.receive(data, 1.0)
    (answer,) = frames(effects)
    assert answer[3] == "system"
    assert answer[4]["message"].startswith("Bad frame: ")
    assert of(Close, effects) == []
    assert session.channels == {"realtime:room": channel}


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


def test_an_expired_token_ends_its_channel_with_an_error_so_that_clients_rejoin() -> None:
    session = make()
    (join,) = of(Join, session.receive(join_frame(), 0.0))
    session.joined(join.channel, problems=[], expires_at=1_000.0, at=AT, rights=ALL)
    assert session.due_in(1.0, 990.0) == 10.0
    assert session.tick(2.0, 999.0) == []
    effects = session.tick(3.0, 1_003.2)
    system, error = frames(effects)
    assert system[4]["message"] == "Token has expired 3 seconds ago"
    assert error == ["6", "6", "realtime:room", "phx_error", {}]
    assert of(Leave, effects) == [Leave(join.channel)]


def test_a_new_token_renews_the_channel_without_a_reply() -> None:
    session = make()
    channel, _ = joined(session)
    frame = text(["6", "7", "realtime:room", "access_token", {"access_token": "new"}])
    assert session.receive(frame, 0.0) == [Renew(channel, "new")]
    assert session.receive(frame, 0.0) == []
    (system,) = frames(session.renewed(channel, problems=[], expires_at=5.0)) or [None]
    assert system is None


@pytest.mark.parametrize("token", [None, "", "sb_publishable_x", 7, ["a"]])
def test_what_is_no_token_changes_nothing(token: object) -> None:
    session = make()
    joined(session)
    frame = text(["6", "7", "realtime:room", "access_token", {"access_token": token}])
    assert session.receive(frame, 0.0) == []


def test_a_token_that_comes_while_joining_is_kept_for_after() -> None:
    session = make()
    (join,) = of(Join, session.receive(join_frame(), 0.0))
    frame = text(["6", "7", "realtime:room", "access_token", {"access_token": "new"}])
    assert session.receive(frame, 0.0) == []
    assert join.channel.token == "new"
    assert join.channel.phase is Phase.JOINING


def test_too_many_channels_are_refused_and_the_old_ones_stay() -> None:
    session = make(channels_per_connection=1)
    joined(session)
    (reply,) = frames(session.receive(join_frame("realtime:b", "7"), 0.0))
    assert reply[4]["response"]["reason"] == "ChannelRateLimitReached: Too many channels"
    assert list(session.channels) == ["realtime:room"]


def test_too_many_joins_are_refused_by_reply() -> None:
    session = make(joins_per_second=2)
    results = [session.receive(join_frame(f"realtime:{n}", str(n)), 0.0) for n in range(3)]
    assert [len(of(Join, effects)) for effects in results] == [1, 1, 0]
    (reply,) = frames(results[2])
    assert reply[4]["response"]["reason"].startswith("ClientJoinRateLimitReached")


def test_public_topics_are_refused_where_only_private_ones_are_allowed() -> None:
    session = make(private_only=True)
    (reply,) = frames(session.receive(join_frame(), 0.0))
    assert reply[4]["response"]["reason"].startswith("PrivateOnly: ")
    assert of(Join, session.receive(join_frame(private=True, ref="7"), 0.0))


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


def test_an_unknown_event_is_answered() -> None:
    session = make()
    joined(session)
    (reply,) = frames(session.receive(text(["6", "7", "realtime:room", "nonsense", {}]), 0.0))
    assert reply[4] == {"status": "error", "response": {"reason": "unknown event 'nonsense'"}}


def test_the_end_of_a_replay_and_of_a_snapshot_are_told_with_their_place() -> None:
    session = make()
    channel, _ = joined(session, postgres_changes=[{"table": "t", "schema": "public"}])
    told = {"status": "ok", "channel": "room", "seq": 41}
    (system,) = frames(session.caught_up(channel, AT))
    assert system[4] == {**told, "extension": "resume", "message": "caught up"}
    (system,) = frames(session.snapshot_begins(channel, AT))
    assert system[4] == {**told, "extension": "snapshot", "message": "snapshot begins"}
    for complete, message in ((True, "snapshot complete"), (False, "snapshot truncated")):
        (system,) = frames(session.snapshot(channel, AT, 7, complete))
        assert system[4] == {**told, "extension": "snapshot", "message": message, "count": 7}
    session.receive(text(["6", "9", "realtime:room", "phx_leave", {}]), 0.0)
    assert session.caught_up(channel, AT) == session.snapshot(channel, AT, 7, True) == []


def test_a_resync_is_told_to_channels_that_listen_to_changes_only() -> None:
    session = make()
    with_changes, _ = joined(session, postgres_changes=[{"table": "t", "schema": "public"}])
    without, _ = joined(session, topic="realtime:b", ref="8")
    (system,) = frames(session.resync(with_changes, AT))
    assert system[4] == {
        "status": "ok",
        "extension": "resume",
        "message": "resync required",
        "channel": "room",
        "seq": 41,
    }
    assert session.resync(without, AT) == []


def test_a_server_that_stops_tells_each_joined_channel_and_closes_with_1012() -> None:
    session = make()
    joined(session)
    session.receive(join_frame("realtime:b", "8"), 0.0)
    effects = session.disconnect()
    (told,) = frames(effects)
    assert told[:4] == ["6", None, "realtime:room", "system"]
    assert told[4] == {
        "status": "ok",
        "extension": "system",
        "message": "Server requested disconnect",
        "channel": "room",
    }
    assert len(of(Leave, effects)) == 2
    assert effects[-1] == Close(CloseCode.RESTART)
    assert session.disconnect() == []


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


def test_new_tokens_without_end_are_refused_by_reply_and_change_nothing() -> None:
    session = make()
    channel, _ = joined(session)
    renewals = 0
    for number in range(2_000):
        frame = text(["6", "9", channel.topic, "access_token", {"access_token": f"t{number}"}])
        effects = session.receive(frame, 0.0)
        renewals += len(of(Renew, effects))
    assert 100 <= renewals < 1_000
    assert channel.token == f"t{renewals - 1}"
    assert frames(effects)[0][4]["status"] == "error"


# --- joins that wait for their bindings ---------------------------------------------------------

BINDING = {"event": "*", "schema": "public", "table": "t"}


def waiting(session: Session, timeout: int = 100, **config: Any) -> Channel:
    config = {"postgres_changes": [BINDING], **config}
    options = {"wait": True, "timeout": timeout}
    frame = join_frame(postgres_changes_options=options, **config)
    (effect,) = of(Join, session.receive(frame, 0.0))
    return effect.channel


def test_a_join_that_waits_is_refused_when_its_time_is_over() -> None:
    session = make()
    channel = waiting(session, timeout=100)
    assert session.due_in(0.0, 0.0) == pytest.approx(0.1)
    assert session.tick(0.09, 0.0) == []
    effects = session.tick(0.1, 0.0)
    assert of(Leave, effects) == [Leave(channel)]
    reply = frames(effects)[0]
    assert reply[4]["status"] == "error"
    assert reply[4]["response"]["reason"] == (
        "PostgresChangesSubscribeTimeout: "
        "Timed out after 100ms waiting for the postgres_changes subscription"
    )


def test_a_join_that_waits_is_refused_for_a_binding_that_can_never_deliver() -> None:
    session = make()
    effects = answer(session, waiting(session), problems=["no such table"])
    reason = frames(effects)[0][4]["response"]["reason"]
    assert reason == "RealtimeDisabledForConfiguration: no such table"
    assert session.channels == {}


def test_a_join_that_waited_with_success_has_no_deadline_any_more() -> None:
    session = make()
    effects = answer(session, waiting(session))
    assert frames(effects)[0][4]["status"] == "ok"
    assert session.tick(1.0, 0.0) == []


@pytest.mark.parametrize("config", [{"postgres_changes": []}, {"postgres_changes": None}])
def test_a_join_without_bindings_has_nothing_to_wait_for(config: dict[str, Any]) -> None:
    session = make()
    channel = waiting(session, **config)
    assert session.tick(50.0, 0.0) == []
    assert channel.topic in session.channels


def test_a_join_that_does_not_wait_succeeds_in_spite_of_a_problem() -> None:
    session = make()
    (effect,) = of(Join, session.receive(join_frame(postgres_changes=[BINDING]), 0.0))
    effects = answer(session, effect.channel, problems=["no such table"])
    assert frames(effects)[0][4]["status"] == "ok"


# --- messages that come before their join is answered -------------------------------------------


def said(ref: str, event: str = "broadcast", **payload: Any) -> str:
    return text(["6", ref, "realtime:room", event, {"type": "broadcast", **payload}])


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
    return session.renewed(channel, problems=[], expires_at=None)


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


def test_a_heartbeat_is_answered_while_a_channel_is_joining() -> None:
    session = make()
    joining(session)
    session.receive(said("7"), 0.0)
    (reply,) = frames(session.receive(text([None, "8", "phoenix", "heartbeat", {}]), 0.0))
    assert reply[4]["status"] == "ok"


# --- broadcasts that ask for no reply -----------------------------------------------------------


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
