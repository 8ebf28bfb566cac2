"""The session: broadcasts and presence on private topics, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from realtime.client_limits import Limits
from realtime.event_log.position import Position
from realtime.protocol.serializer import Version
from realtime.session.channel import Channel
from realtime.session.effects import (
    Effect,
    Join,
    Leave,
    Send,
    SendBroadcast,
    SubscribePresence,
    Track,
)
from realtime.session.session import Session
from realtime.topics.broadcast import LONGEST_TOPIC
from realtime.topics.rights import ALL, TopicRights

AT = Position("e1", 41)
HEARS = TopicRights(receive=True)
WATCHES = TopicRights(view=True)


def make(version: Version = Version.V2, **limits: Any) -> Session:
    return Session(version, Limits(**limits), lambda: AT, last_seen=0.0)


def frames(effects: list[Effect]) -> list[Any]:
    return [json.loads(effect.frame) for effect in effects if isinstance(effect, Send)]


def ask(session: Session, **config: Any) -> list[Effect]:
    frame = ["6", "6", "realtime:room", "phx_join", {"config": config}]
    return session.receive(json.dumps(frame), 0.0)


def joined(
    session: Session, rights: TopicRights = ALL, state: bytes = b"{}", **config: Any
) -> tuple[Channel, list[Effect]]:
    (join,) = ask(session, **config)
    assert isinstance(join, Join)
    effects = session.joined(
        join.channel,
        problems=[],
        expires_at=None,
        at=AT,
        rights=rights,
        subject="s",
        presence=state,
    )
    return join.channel, effects


def push(session: Session, event: str, payload: Any, now: float = 0.0) -> list[Effect]:
    return session.receive(json.dumps(["6", "7", "realtime:room", event, payload]), now)


def track(session: Session, meta: Any, now: float = 0.0) -> list[Effect]:
    return push(session, "presence", {"type": "presence", "event": "track", "payload": meta}, now)


def reason(effects: list[Effect]) -> str:
    (reply,) = frames(effects)
    assert reply[3:] == ["phx_reply", {"status": "error", "response": reply[4]["response"]}]
    found: str = reply[4]["response"]["reason"]
    return found


# --- joining ------------------------------------------------------------------------------------


def test_replay_is_refused_on_a_public_topic_and_without_a_valid_since() -> None:
    refused = reason(ask(make(), broadcast={"replay": {"since": 1}}))
    assert refused == "UnableToReplayMessages: Replay is not allowed for public channels"
    refused = reason(ask(make(), private=True, broadcast={"replay": {"since": "yesterday"}}))
    assert refused == "UnableToReplayMessages: Replay params are not valid"


def test_a_topic_name_that_is_too_long_is_refused_and_not_repeated() -> None:
    session = make()
    topic = "realtime:" + "x" * (LONGEST_TOPIC + 1)
    effects = session.receive(json.dumps(["6", "6", topic, "phx_join", {}]), 0.0)
    assert reason(effects) == "TopicNameTooLong: A topic name has at most 1024 characters"


def test_the_state_follows_the_answer_for_who_asked_and_may_see_it() -> None:
    state = b'{"me":{"metas":[{"phx_ref":"a.1"}]}}'
    _, effects = joined(make(), ALL, state, presence={"enabled": True})
    assert frames(effects)[1] == ["6", None, "realtime:room", "presence_state", json.loads(state)]
    for rights, enabled in ((ALL, False), (HEARS, True)):
        _, effects = joined(make(), rights, state, private=True, presence={"enabled": enabled})
        assert len(frames(effects)) == 1


def test_replication_ready_is_answered_when_it_was_asked_for() -> None:
    _, effects = joined(make(), broadcast={"replication_ready": True})
    assert frames(effects)[1][4] == {
        "status": "ok",
        "message": "Replication connection established",
        "extension": "system",
        "channel": "room",
    }


# --- broadcast ----------------------------------------------------------------------------------


def test_who_may_not_send_is_told_so_and_keeps_the_channel() -> None:
    session = make()
    joined(session, HEARS, private=True, broadcast={"ack": True})
    told = reason(push(session, "broadcast", {"event": "e"}))
    assert told == (
        "Unauthorized: You do not have permissions to write to this Channel topic: room"
    )
    assert "realtime:room" in session.channels


def test_permissions_that_change_are_those_of_the_next_message() -> None:
    session = make()
    channel, _ = joined(session, HEARS, private=True)
    assert session.permitted(channel, TopicRights(receive=True, send=True)) == []
    (effect,) = push(session, "broadcast", {"event": "e"})
    assert isinstance(effect, SendBroadcast)


def test_who_may_see_nobody_any_more_is_told_of_an_empty_room_once() -> None:
    session = make()
    channel, _ = joined(session, ALL, presence={"enabled": True})
    (empty,) = frames(session.permitted(channel, HEARS))
    assert empty == ["6", None, "realtime:room", "presence_state", {}]
    assert session.permitted(channel, HEARS) == []


def test_who_did_not_ask_who_is_present_is_not_told_of_an_empty_room() -> None:
    session = make()
    channel, _ = joined(session, ALL)
    assert session.permitted(channel, HEARS) == []


def test_a_channel_that_may_neither_hear_nor_see_ends_by_phx_error() -> None:
    session = make()
    channel, _ = joined(session, ALL, private=True)
    effects = session.permitted(channel, TopicRights(send=True, track=True))
    system, error = frames(effects)
    assert system[4]["message"] == (
        "You no longer have permission to read from this Channel topic: room"
    )
    assert error[:4] == ["6", "6", "realtime:room", "phx_error"]
    assert Leave(channel) in effects


# --- presence -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", list(Version))
def test_a_presence_is_answered_when_everybody_here_knows(version: Version) -> None:
    session = make(version)
    channel, _ = joined_as(version, session)
    payload = {"event": "TRACK", "payload": {"n": 1}}
    (effect,) = session.receive(envelope(version, "presence", payload), 0.0)
    assert isinstance(effect, Track)
    assert (effect.channel, effect.meta) == (channel, b'{"n":1}')
    (reply,) = frames(session.topic_events.tracked(effect))
    body = reply[4] if version is Version.V2 else reply["payload"]
    assert body == {"status": "ok", "response": {}}


def envelope(version: Version, event: str, payload: Any, ref: str = "7") -> str:
    if version is Version.V2:
        return json.dumps(["6", ref, "realtime:room", event, payload])
    return json.dumps({"topic": "realtime:room", "event": event, "payload": payload, "ref": ref})


def joined_as(version: Version, session: Session) -> tuple[Channel, list[Effect]]:
    config = {"config": {"presence": {"enabled": True, "key": "me"}}}
    (join,) = session.receive(envelope(version, "phx_join", config, "6"), 0.0)
    assert isinstance(join, Join)
    effects = session.joined(
        join.channel, problems=[], expires_at=None, at=AT, rights=ALL, subject="s"
    )
    return join.channel, effects


def test_a_meta_keeps_its_numbers_and_loses_names_of_the_servers() -> None:
    session = make()
    joined(session, presence={"enabled": True})
    text = (
        '["6","7","realtime:room","presence",{"event":"track","payload":'
        '{"n":12345678901234567890.10,"phx_ref":"mine","phx_ref_prev":"x"}}]'
    )
    (effect,) = session.receive(text, 0.0)
    assert isinstance(effect, Track)
    assert effect.meta == b'{"n":12345678901234567890.10}'


def test_who_is_present_himself_is_told_who_else_is() -> None:
    session = make()
    channel, _ = joined(session)
    watch, effect = track(session, {})
    assert watch == SubscribePresence(channel)
    assert isinstance(effect, Track)
    (effect,) = track(session, {"n": 2})
    assert frames(session.presence(channel, b'{"a":{"metas":[]}}')) == [
        ["6", None, "realtime:room", "presence_state", {"a": {"metas": []}}]
    ]


def test_who_may_be_present_without_seeing_others_is_not_told_of_them() -> None:
    session = make()
    channel, _ = joined(session, TopicRights(receive=True, track=True), private=True)
    (effect,) = track(session, {})
    assert isinstance(effect, Track)
    assert session.presence(channel, b"{}") == []


def test_who_may_not_be_present_is_told_so() -> None:
    session = make()
    joined(session, WATCHES, private=True)
    assert reason(track(session, {})) == (
        "Unauthorized: You do not have permissions to track presence on this Channel topic: room"
    )
    # Who is not present may say so all the same.
    (effect,) = push(session, "presence", {"event": "untrack"})
    assert isinstance(effect, Track)
    assert effect.meta is None


@pytest.mark.parametrize("key", ["ids", "__proto__", "constructor", "toString"])
def test_a_key_that_clients_could_not_read_is_refused(key: str) -> None:
    session = make()
    joined(session, presence={"enabled": True, "key": key})
    assert reason(track(session, {})).startswith(f"Presence key '{key}' is reserved")


def test_a_key_that_is_too_long_is_refused() -> None:
    session = make()
    joined(session, presence={"enabled": True, "key": "k" * 1_025})
    assert reason(track(session, {})) == "Presence key is too long: at most 1024 characters"


@pytest.mark.parametrize("meta", [None, [], "x", 1])
def test_a_meta_is_an_object(meta: Any) -> None:
    session = make()
    joined(session, presence={"enabled": True})
    assert reason(track(session, meta)) == "Presence track payload must be a map"


def test_a_meta_that_is_too_large_is_refused() -> None:
    session = make(presence_meta_bytes=20)
    joined(session, presence={"enabled": True})
    assert reason(track(session, {"x": "y" * 20})) == "Track message size exceeded"
    assert reason(track(session, {"x": "y" * 200_000})) == "Track message size exceeded"


def test_an_unknown_presence_event_is_answered() -> None:
    session = make()
    joined(session)
    told = reason(push(session, "presence", {"event": "dance"}))
    assert told == "unknown presence event 'dance': expected track or untrack"
    assert reason(push(session, "presence", {"event": 7})).startswith("unknown presence event 7")


def test_a_flood_of_presence_is_refused_by_reply_and_the_channel_lives() -> None:
    session = make(presence_per_30_seconds=2)
    joined(session, presence={"enabled": True})
    for _ in range(2):
        assert isinstance(track(session, {}, 1.0)[0], Track)
    assert reason(track(session, {}, 1.0)) == (
        "PresenceRateLimitReached: Client presence rate limit exceeded"
    )
    assert isinstance(track(session, {}, 16.0)[0], Track)


def test_each_channel_has_a_presence_limit_of_its_own() -> None:
    session = make(presence_per_30_seconds=1)
    joined(session, presence={"enabled": True})
    track(session, {})
    frame = ["8", "8", "realtime:other", "phx_join", {"config": {"presence": {"enabled": True}}}]
    (join,) = session.receive(json.dumps(frame), 0.0)
    assert isinstance(join, Join)
    session.joined(join.channel, problems=[], expires_at=None, at=AT, rights=ALL, subject="s")
    payload = {"event": "track", "payload": {}}
    effects = session.receive(json.dumps(["8", "9", "realtime:other", "presence", payload]), 0.0)
    assert isinstance(effects[0], Track)


def test_a_presence_that_cannot_be_stored_is_answered_with_why() -> None:
    session = make()
    joined(session, presence={"enabled": True})
    (effect,) = track(session, {})
    assert isinstance(effect, Track)
    assert (
        reason(session.topic_events.tracked(effect, "a NUL"))
        == "Presence could not be stored: a NUL"
    )


def test_a_channel_that_has_left_is_answered_what_it_asked_and_told_nothing_else() -> None:
    session = make()
    channel, _ = joined(session, presence={"enabled": True})
    (effect,) = track(session, {})
    assert isinstance(effect, Track)
    session.receive(json.dumps(["6", "9", "realtime:room", "phx_leave", {}]), 0.0)
    (reply,) = frames(session.topic_events.tracked(effect))
    assert reply[3:] == ["phx_reply", {"status": "ok", "response": {}}]
    assert session.presence(channel, b"{}") == []
    assert session.permitted(channel, ALL) == []
