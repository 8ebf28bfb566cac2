"""Bindings: echoed exactly, what they cover, and their ids."""

from __future__ import annotations

import pytest
from hypothesis import given

from realtime.protocol.join import (
    binding_id,
    free_id,
    parse_join,
)
from tests.support.joins import binding, bindings, json_values, on_table

# Tables whose bindings have one hash.
MEETING = ("t2610", "t4651")


@pytest.mark.parametrize(
    "item",
    [
        {"event": "insert", "schema": "public", "table": "t", "filter": " id=eq.1 "},
        {"event": "*", "schema": "*"},
        {"table": "t", "schema": None, "filter": None},
        {"filter": "id=eq.1", "table": "t", "event": 5, "schema": {"x": [1]}},
        {"schema": "public", "table": "t", "select": ["id"], "since": 5, "live": True},
        {"events": "INSERT", "table": "t", "of my own": [1, {"x": None}]},
        {"table": "t", "id": "mine"},
        {},
    ],
)
def test_a_binding_is_echoed_whole_with_its_id(item) -> None:
    config = parse_join({"config": {"postgres_changes": [item]}})
    (found,) = config.bindings
    assert config.echoes == ({**item, "id": found.id},)
    assert isinstance(found.id, int)


def test_bindings_keep_their_order_and_null_ones_are_passed_over() -> None:
    found = bindings({"table": "a"}, None, "x", 5, {"table": "b"}, {"table": "a"})
    assert [one.table for one in found] == ["a", "b", "a"]


def test_a_column_that_is_selected_many_times_is_kept_once() -> None:
    (found,) = bindings({"table": "t", "select": ["title", "id"] * 1_000})
    assert found.select == ("title", "id")


@pytest.mark.parametrize("sent", [None, {}, "x", 5, True])
def test_a_list_of_bindings_that_is_none_is_empty(sent) -> None:
    assert parse_join({"config": {"postgres_changes": sent}}).bindings == ()


@pytest.mark.parametrize(
    "sent, meant",
    [
        ("INSERT", "INSERT"),
        ("update", "UPDATE"),
        ("Delete", "DELETE"),
        ("*", "*"),
        ("truncate", "*"),
        ("", "*"),
        (None, "*"),
        (5, "*"),
    ],
)
def test_an_event_is_read_whatever_its_case_and_an_unknown_one_means_all(sent, meant) -> None:
    assert on_table(event=sent).event == meant


@pytest.mark.parametrize(
    "item, schema, table",
    [
        ({"schema": "public", "table": "t"}, "public", "t"),
        ({"schema": "public"}, "public", "*"),
        ({"table": "t"}, "public", "t"),
        ({"schema": "*"}, "*", "*"),
        ({"schema": "*", "table": "*"}, "*", "*"),
        ({"schema": None, "table": "t"}, "public", "t"),
        ({"schema": "public", "table": 5}, "public", "*"),
    ],
)
def test_schema_and_table_have_their_official_defaults(item, schema, table) -> None:
    found = binding(**item)
    assert (found.schema, found.table, found.error) == (schema, table, None)


def test_wildcards_cover_what_they_should() -> None:
    assert binding(schema="*").covers("other", "x")
    assert binding(schema="public").covers("public", "x")
    assert not binding(schema="public").covers("other", "x")
    assert on_table().covers("public", "t")
    assert not on_table().covers("public", "x")


def test_equal_bindings_share_an_id_and_others_do_not() -> None:
    first, second, other, live = bindings(
        {"event": "INSERT", "schema": "public", "table": "t"},
        {"table": "t", "event": "insert"},
        {"event": "UPDATE", "schema": "public", "table": "t"},
        {"event": "INSERT", "schema": "public", "table": "t", "live": True},
    )
    assert first.id == second.id
    assert len({first.id, other.id, live.id}) == 3


def test_where_a_binding_begins_is_not_in_its_id_unless_a_channel_has_several() -> None:
    plain = on_table()
    for begins in ({"since": 5}, {"since": "e:7"}, {"snapshot": True}, {"snapshot": {"limit": 3}}):
        assert on_table(**begins).id == plain.id
    found = bindings(
        *({"table": "t", "event": "*", **more} for more in ({"since": 5}, {"since": 6}, {}))
    )
    assert len({each.id for each in found}) == 3


def test_an_id_is_the_same_in_every_process() -> None:
    assert binding_id("INSERT", "public", "t", None) == 22_297_173


def test_bindings_whose_hashes_meet_still_get_ids_of_their_own() -> None:
    one, other = MEETING
    (alone,) = bindings({"table": other})
    found = bindings({"table": one}, {"table": other}, {"table": one})
    assert [each.id for each in found] == [alone.id, alone.id + 1, alone.id]


def test_the_id_after_the_last_is_the_first() -> None:
    taken: dict[int, bytes] = {}
    found = [free_id(taken, 2**27 - 1, text) for text in (b"a", b"b", b"a", b"c")]
    assert found == [2**27 - 1, 0, 2**27 - 1, 1]


@given(json_values)
def test_an_id_fits_27_bits(value) -> None:
    assert 0 <= binding_id(value) < 2**27
