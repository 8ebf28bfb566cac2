"""Tokens on a channel: their end, and new ones."""

from __future__ import annotations

import pytest

from realtime.session.channel import Phase
from realtime.session.effects import (
    Effect,
    Join,
    Leave,
    Renew,
)
from realtime.session.session import MOST_BYTES
from realtime.topics.rights import ALL
from tests.support.sessions import AT, frames, join_frame, joined, make, of, text


def test_an_expired_token_ends_its_channel_with_an_error_so_that_clients_rejoin() -> None:
    session = make()
    (join,) = of(Join, session.receive(join_frame(), 0.0))
    session.joined(join.channel, problems=[], expires_at=1_000.0, at=AT, rights=ALL, subject="s")
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
    (system,) = frames(session.renewed(channel, problems=[], expires_at=5.0, subject="s")) or [None]
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


def test_the_size_of_a_socket_counts_the_last_token_that_came_after_a_join() -> None:
    session = make(frame_bytes=None, payload_bytes=None)
    (join,) = of(Join, session.receive(join_frame(), 0.0))
    before = session.size

    def renew(token: str) -> list[Effect]:
        frame = ["6", "7", "realtime:room", "access_token", {"access_token": token}]
        return session.receive(text(frame), 0.0)

    for token in ("a" * 1_000, "b" * 10_000, "c" * 100):
        assert renew(token) == []
        assert session.size == before + len(token)
    (reply,) = frames(renew("d" * MOST_BYTES))
    assert reply[4]["response"]["reason"].startswith("MessageRateLimitReached")
    assert join.channel.token == "c" * 100


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
