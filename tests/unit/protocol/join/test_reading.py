"""Joins: read leniently, and whatever comes, every binding can be answered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.predicate import Test as Comparison
from realtime.protocol.join import (
    BindingError,
    BroadcastReplay,
    JoinConfig,
    SnapshotOption,
    parse_join,
    token_in,
)
from tests.support.joins import COLUMNS, items, json_values, on_table


def test_the_join_of_the_javascript_client_is_read() -> None:
    config = parse_join(
        {
            "config": {
                "broadcast": {"ack": True, "self": True},
                "presence": {"key": "me", "enabled": True},
                "postgres_changes": [
                    {"event": "INSERT", "schema": "public", "table": "t", "filter": "id=eq.1"}
                ],
                "private": False,
            },
            "access_token": "J",
        }
    )
    assert (config.broadcast_ack, config.broadcast_self, config.private) == (True, True, False)
    assert (config.presence_key, config.presence_enabled) == ("me", True)
    assert config.access_token == "J"
    (found,) = config.bindings
    assert (found.event, found.schema, found.table) == ("INSERT", "public", "t")
    assert found.predicate(COLUMNS) == Comparison("id", "exact", 1)
    assert found.error is None


@pytest.mark.parametrize("payload", [{}, {"config": None}, {"config": []}, {"config": "x"}, None])
def test_a_join_that_asks_for_nothing_is_a_plain_one(payload) -> None:
    assert parse_join(payload) == JoinConfig()


@pytest.mark.parametrize(
    "sent, meant",
    [
        (True, True),
        ("true", True),
        ("True", True),
        (False, False),
        ("False", False),
        (None, False),
        (1, False),
        ("yes", False),
        ([], False),
    ],
)
def test_booleans_may_come_as_strings(sent, meant) -> None:
    config = parse_join(
        {
            "config": {
                "broadcast": {"ack": sent, "self": sent, "replication_ready": sent},
                "presence": {"enabled": sent},
                "private": sent,
                "postgres_changes_options": {"wait": sent},
            }
        }
    )
    flags = {
        config.broadcast_ack,
        config.broadcast_self,
        config.replication_ready,
        config.presence_enabled,
        config.private,
        config.wait,
    }
    assert flags == {meant}


@pytest.mark.parametrize(
    "sent, meant",
    [
        ("me", "me"),
        ("", ""),
        (None, ""),
        (5, "5"),
        (True, "true"),
        (1.5, "1.5"),
        ({}, ""),
        ([], ""),
    ],
)
def test_a_presence_key_may_be_any_scalar(sent, meant) -> None:
    assert parse_join({"config": {"presence": {"key": sent}}}).presence_key == meant


@pytest.mark.parametrize(
    "sent, meant",
    [
        ({"since": 1000, "limit": 5}, BroadcastReplay(1000, 5)),
        ({"since": 1000}, BroadcastReplay(1000, 25)),
        ({"since": 1000.0, "limit": 100}, BroadcastReplay(1000, 25)),
        ({"since": "1000", "limit": 0}, BroadcastReplay(1000, 1)),
        ({"limit": 5}, BroadcastReplay(None, 5)),
        ({"since": "soon"}, BroadcastReplay(None, 25)),
        ({"since": True}, BroadcastReplay(None, 25)),
        (None, None),
        (True, None),
    ],
)
def test_a_replay_is_clamped_and_one_without_since_is_not_valid(sent, meant) -> None:
    assert parse_join({"config": {"broadcast": {"replay": sent}}}).replay == meant


@pytest.mark.parametrize(
    "sent, meant",
    [(None, 15_000), (100, 100), (60_000, 20_000), (0, 15_000), (-1, 15_000), ("x", 15_000)],
)
def test_the_wait_is_capped(sent, meant) -> None:
    options = {"wait": True, "timeout": sent}
    assert parse_join({"config": {"postgres_changes_options": options}}).wait_timeout_ms == meant


@pytest.mark.parametrize(
    "payload, token",
    [
        ({}, None),
        ({"access_token": None}, None),
        ({"access_token": ""}, None),
        ({"access_token": 7}, None),
        ({"access_token": " J "}, "J"),
        ({"access_token": "J", "user_token": "U"}, "U"),
        ({"access_token": "J", "user_token": None}, "J"),
        ({"access_token": "sb_publishable_x"}, None),
        ({"access_token": " sb_secret_y"}, None),
    ],
)
def test_the_token_of_a_join_is_found_under_either_name(payload, token) -> None:
    assert token_in(payload) == token
    assert parse_join(payload).access_token == token


@pytest.mark.parametrize(
    ("presence", "enabled"),
    [({}, True), ({"key": "me"}, True), ({"enabled": False}, False), (None, False), ("x", False)],
)
def test_presence_options_without_enabled_mean_that_it_is(presence: Any, enabled: bool) -> None:
    assert parse_join({"config": {"presence": presence}}).presence_enabled is enabled


@pytest.mark.parametrize(
    "sent, meant",
    [
        (True, SnapshotOption()),
        ("true", SnapshotOption()),
        ({}, SnapshotOption()),
        ({"limit": 5}, SnapshotOption(5)),
        ({"limit": "x"}, SnapshotOption()),
        ({"limit": -1}, SnapshotOption()),
        (False, None),
        (None, None),
        (5, None),
    ],
)
def test_a_snapshot_is_asked_for_with_or_without_limit(sent, meant) -> None:
    assert on_table(snapshot=sent).snapshot == meant


def test_live_is_a_flag() -> None:
    assert on_table(live=True).live
    assert not on_table().live


configs = st.fixed_dictionaries(
    {},
    optional={
        "broadcast": json_values
        | st.dictionaries(st.sampled_from(["self", "ack", "replay"]), json_values),
        "presence": json_values | st.dictionaries(st.sampled_from(["key", "enabled"]), json_values),
        "private": json_values,
        "postgres_changes": json_values | st.lists(items, max_size=4),
        "postgres_changes_options": json_values
        | st.dictionaries(st.sampled_from(["wait", "timeout"]), json_values),
    },
)


@given(
    json_values
    | st.fixed_dictionaries({}, optional={"config": configs, "access_token": json_values})
)
def test_no_payload_raises_and_every_binding_can_be_answered(payload) -> None:
    config = parse_join(payload)
    for found, echo in zip(config.bindings, config.echoes, strict=True):
        assert msgspec.json.decode(msgspec.json.encode(echo))["id"] == found.id
        try:
            found.predicate(COLUMNS)
        except BindingError as error:
            assert error.message
        if found.error is None:
            assert found.not_published()
