"""Joins that ask for the same are one object in memory, unless what they ask for is large."""

from __future__ import annotations

from typing import Any

import pytest

from realtime.protocol.join import JoinConfig, parse_join


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
