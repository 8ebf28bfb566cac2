"""Joins and leaves: how they are answered, also those that wait for their bindings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from realtime.protocol.serializer import Version
from realtime.session.channel import Channel
from realtime.session.effects import (
    Join,
    Leave,
)
from realtime.session.session import Session
from realtime.topics.rights import ALL
from tests.support.sessions import AT, answer, frames, join_frame, joined, make, of, text


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
    assert reply[4]["response"]["subject"] == "s"
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
        join.channel, problems=["no such table"], expires_at=None, at=AT, rights=ALL, subject="s"
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
    effects = session.joined(
        join.channel, problems=[], expires_at=None, at=AT, rights=ALL, subject="s"
    )
    assert effects == [Leave(join.channel)]
    assert session.refused(join.channel, "late") == []


def test_a_refused_join_is_told_why_and_can_be_tried_again() -> None:
    session = make()
    (join,) = of(Join, session.receive(join_frame(), 0.0))
    (reply,) = frames(session.refused(join.channel, "Unauthorized: no"))
    assert reply[4] == {"status": "error", "response": {"reason": "Unauthorized: no"}}
    assert of(Join, session.receive(join_frame(ref="8"), 1.0))


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
