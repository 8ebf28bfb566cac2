"""Joins that ask for the same are one object in memory, unless what they ask for is large."""

from __future__ import annotations

import json
from typing import Any

import pytest

from realtime.protocol.join import JoinConfig, parse_join, read_join


def joined(**config: Any) -> JoinConfig:
    return parse_join({"config": config})


def on(**binding: Any) -> JoinConfig:
    return joined(postgres_changes=[{"event": "*", "schema": "public", **binding}])


def test_joins_that_ask_for_the_same_share_bindings_and_configuration() -> None:
    first, second = on(table="t"), on(table="t")
    assert first.bindings is second.bindings
    assert first.answered() is second.answered()
    assert first.answered().echoes == () != first.echoes
    assert on(table="u").answered() != first.answered()


@pytest.mark.parametrize(
    "binding",
    [
        {"table": "t" * 1_000},
        {"table": "t", "select": ["c" * 1_000]},
        {"table": "t", "filter": "id=eq.1"},
        {"table": "t", "since": {"epoch": "e", "seq": 1}},
    ],
)
def test_what_is_large_or_of_one_client_is_not_shared(binding: dict[str, Any]) -> None:
    first, second = on(**binding), on(**binding)
    assert first == second
    assert first.bindings is not second.bindings
    assert first.answered() is not second.answered()


def test_a_key_or_a_token_of_a_client_is_not_shared() -> None:
    for config in (
        {"presence": {"key": "k" * 1_000}},
        {"private": True, "broadcast": {"replay": {"since": 1}}},
    ):
        assert joined(**config).answered() is not joined(**config).answered()
    one, other = (parse_join({"access_token": "a.b.c"}) for _ in range(2))
    assert one.answered() is not other.answered()


def read(payload: dict[str, Any]) -> JoinConfig:
    return read_join(payload, json.dumps(payload).encode())


BINDING = {"event": "*", "schema": "public", "table": "t", "filter": "id=eq.1", "since": 7}


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"config": None},
        {"config": {}},
        {"config": {"postgres_changes": [BINDING], "private": True}},
        {"config": {"postgres_changes": [{"table": "t" * 2_000}]}},
        {"config": {"presence": {"key": 1.5}}, "access_token": "a.b.c"},
        {"access_token": "a.b.c"},
    ],
)
def test_a_join_that_is_read_with_its_text_means_the_same(payload: dict[str, Any]) -> None:
    for _ in range(2):
        found, meant = read(payload), parse_join(payload)
        assert found == meant
        assert found.answered() == meant.answered()
        assert found.answered().echoes == ()


def test_a_text_that_many_send_is_read_once() -> None:
    first, second = (read({"config": {"postgres_changes": [BINDING]}}) for _ in range(2))
    assert first is second
    assert first.answered() is second.answered()


def test_clients_with_tokens_of_their_own_share_all_but_the_token() -> None:
    one, other, nobody = (
        read({"config": {"postgres_changes": [BINDING]}, **token})
        for token in ({"access_token": "a.b.c"}, {"user_token": "d.e.f"}, {})
    )
    assert one.bindings is other.bindings is nobody.bindings
    assert [each.access_token for each in (one, other, nobody)] == ["a.b.c", "d.e.f", None]
    assert one.answered().access_token == "a.b.c"
    assert nobody.answered().access_token is None


def test_a_long_text_is_not_kept_for_others() -> None:
    payload = {"config": {"postgres_changes": [BINDING], "more": "x" * 2_000}}
    assert read(payload) is not read(payload)


def test_a_topic_that_names_a_table_counts_for_a_join_without_a_configuration_alone() -> None:
    named = {"schema": "public", "table": "t"}
    assert len(read_join({}, b"{}", named).bindings) == 1
    assert read_join({"config": {}}, b'{"config":{}}', named).bindings == ()
