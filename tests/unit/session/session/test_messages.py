"""Single messages and what the server says of itself: heartbeats, errors, system messages."""

from __future__ import annotations

import json

import pytest

from realtime.protocol.errors import SUBSCRIBED, CloseCode
from realtime.protocol.serializer import Version
from realtime.protocol.table_key import TableKey
from realtime.session.effects import (
    Close,
    Join,
    Leave,
    SendBroadcast,
)
from realtime.topics.rights import ALL
from tests.support.sessions import AT, frames, join_frame, joined, make, of, text


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


def test_a_heartbeat_tells_channels_that_follow_changes_once_that_these_wait() -> None:
    hint: str | None = None
    session = make(waiting=lambda: hint)
    changes = [{"event": "*", "schema": "public", "table": "t"}]
    _channel, told = joined(session, postgres_changes=changes)
    assert "hint" not in json.dumps(frames(told))
    joined(session, topic="realtime:chat", ref="7")
    heartbeat = text([None, "11", "phoenix", "heartbeat", {}])
    assert len(frames(session.receive(heartbeat, 0.0))) == 1
    hint = "nobody numbers"
    (_reply, system) = frames(session.receive(heartbeat, 0.0))
    assert system[2:4] == ["realtime:room", "system"]
    assert (system[4]["status"], system[4]["hint"]) == ("ok", "nobody numbers")
    assert len(frames(session.receive(heartbeat, 0.0))) == 1
    # It is told again when it happens again.
    hint = None
    assert len(frames(session.receive(heartbeat, 0.0))) == 1
    hint = "nobody numbers"
    assert len(frames(session.receive(heartbeat, 0.0))) == 2


def test_a_client_that_was_told_by_its_join_is_not_told_again() -> None:
    session = make(waiting=lambda: "nobody numbers")
    changes = [{"event": "*", "schema": "public", "table": "t"}]
    (join,) = of(Join, session.receive(join_frame(postgres_changes=changes), 0.0))
    hints = {SUBSCRIBED: "nobody numbers"}
    session.joined(
        join.channel, problems=(), expires_at=None, at=AT, rights=ALL, subject="s", hints=hints
    )
    heartbeat = text([None, "11", "phoenix", "heartbeat", {}])
    assert len(frames(session.receive(heartbeat, 0.0))) == 1
    # A binding that delivers nothing waits for nothing.
    session.notices.binding_ended(join.channel, "ended", working=False)
    assert len(frames(session.receive(heartbeat, 0.0))) == 1


def test_a_channel_of_which_one_binding_ended_or_came_back_is_told_of_waiting() -> None:
    hint: str | None = None
    session = make(waiting=lambda: hint)
    changes = [{"event": "*", "schema": "public", "table": table} for table in ("t", "u")]
    channel, _ = joined(session, postgres_changes=changes)
    heartbeat = text([None, "11", "phoenix", "heartbeat", {}])

    def told() -> bool:
        nonlocal hint
        hint = None
        session.receive(heartbeat, 0.0)
        hint = "nobody numbers"
        return len(frames(session.receive(heartbeat, 0.0))) == 2

    session.notices.binding_ended(channel, "ended", working=True)
    assert told()
    session.notices.binding_ended(channel, "ended too", working=False)
    assert not told()
    session.notices.resubscribed(channel)
    assert told()


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


def test_an_unknown_event_is_answered() -> None:
    session = make()
    joined(session)
    (reply,) = frames(session.receive(text(["6", "7", "realtime:room", "nonsense", {}]), 0.0))
    assert reply[4] == {"status": "error", "response": {"reason": "unknown event 'nonsense'"}}


def test_the_end_of_a_replay_and_of_a_snapshot_are_told_with_their_place() -> None:
    session = make()
    channel, _ = joined(session, postgres_changes=[{"table": "t", "schema": "public"}])
    told = {"status": "ok", "channel": "room", "seq": 41}
    (system,) = frames(session.notices.caught_up(channel, AT))
    assert system[4] == {**told, "extension": "resume", "message": "caught up"}
    (system,) = frames(session.notices.snapshot_begins(channel, AT))
    assert system[4] == {**told, "extension": "snapshot", "message": "snapshot begins"}
    key = TableKey("public", "t", ("a", "b"))
    (system,) = frames(session.notices.snapshot_begins(channel, AT, [key]))
    assert system[4]["keys"] == [{"schema": "public", "table": "t", "columns": ["a", "b"]}]
    for complete, message in ((True, "snapshot complete"), (False, "snapshot truncated")):
        (system,) = frames(session.notices.snapshot(channel, AT, 7, complete))
        assert system[4] == {**told, "extension": "snapshot", "message": message, "count": 7}
    session.receive(text(["6", "9", "realtime:room", "phx_leave", {}]), 0.0)
    assert (
        session.notices.caught_up(channel, AT)
        == session.notices.snapshot(channel, AT, 7, True)
        == []
    )


def test_a_resync_is_told_to_channels_that_listen_to_changes_only() -> None:
    session = make()
    with_changes, _ = joined(session, postgres_changes=[{"table": "t", "schema": "public"}])
    without, _ = joined(session, topic="realtime:b", ref="8")
    (system,) = frames(session.notices.resync(with_changes, AT))
    assert system[4] == {
        "status": "ok",
        "extension": "resume",
        "message": "resync required",
        "channel": "room",
        "seq": 41,
    }
    assert session.notices.resync(without, AT) == []


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
