"""Joins without a config, which name a table by their topic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from realtime.protocol.change_frame import ChangeFrame
from realtime.protocol.join import (
    JoinConfig,
    parse_join,
)
from realtime.protocol.legacy_topic import binding_of
from tests.support.joins import (
    on_table,
    refused,
)


def named(name: str) -> dict[str, Any]:
    found = binding_of(name, {"public"})
    assert found is not None
    return found


@pytest.mark.parametrize("config", [None, {}, [], "x"])
def test_the_topic_of_a_join_with_config_is_a_name_and_no_more(config) -> None:
    assert parse_join({"config": config}, {"schema": "public"}) == JoinConfig()


@pytest.mark.parametrize(
    "name, schema, table, filter_",
    [
        ("public:t", "public", "t", ""),
        ("public:t:id=eq.1", "public", "t", "id=eq.1"),
        ("public:t:name=eq.a:b", "public", "t", "name=eq.a:b"),
        ("public", "public", "*", ""),
        ("*", "*", "*", ""),
    ],
)
def test_a_join_without_config_asks_for_what_its_topic_names(name, schema, table, filter_) -> None:
    config = parse_join({"user_token": "T"}, named(name))
    (found,) = config.bindings
    assert (found.event, found.schema, found.table, found.filter) == ("*", schema, table, filter_)
    assert found.error is None
    assert config.change_frame is ChangeFrame.BARE
    assert config.access_token == "T"
    (echo,) = config.echoes
    assert echo["id"] == found.id and echo["schema"] == schema
    assert replace(config, bindings=(), echoes=()) == replace(
        JoinConfig(), access_token="T", change_frame=ChangeFrame.BARE
    )


@pytest.mark.parametrize("payload", [{}, None, [], "x"])
def test_a_legacy_join_may_have_no_payload_at_all(payload) -> None:
    assert len(parse_join(payload, named("public:t")).bindings) == 1


@pytest.mark.parametrize("name", ["public:", "*:", "public::id=eq.1"])
def test_a_legacy_topic_with_an_empty_name_in_it_asks_for_nothing(name) -> None:
    (found,) = parse_join({}, named(name)).bindings
    assert (
        refused(found) == "No subscription params provided. Please provide at least a `schema`"
        " or `table` to subscribe to: %{}"
    )


def test_a_filter_of_a_legacy_topic_is_refused_in_the_same_words() -> None:
    (legacy,) = parse_join({}, named("public:t:wrong")).bindings
    assert refused(legacy) == refused(on_table(filter="wrong"))
    (legacy,) = parse_join({}, named("public:t:nothing=eq.1")).bindings
    assert refused(legacy) == refused(on_table(filter="nothing=eq.1"))
