"""Joins: read leniently, echoed exactly, and wrong bindings told in the official words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import TRUE
from auth_rls.predicates.predicate import Test as Comparison
from realtime.protocol.change_frame import ChangeFrame
from realtime.protocol.join import (
    LIVE_NEEDS_ALL_EVENTS,
    MAX_BINDINGS,
    SNAPSHOT_NEEDS_INSERTS,
    Binding,
    BindingError,
    BroadcastReplay,
    JoinConfig,
    SnapshotOption,
    binding_id,
    free_id,
    parse_join,
    token_in,
)
from realtime.protocol.legacy_topic import binding_of

COLUMNS = {"id": Kind.INT, "name": Kind.TEXT}
# Tables whose bindings have one hash.
MEETING = ("t2610", "t4651")


def bindings(*items: object) -> tuple[Binding, ...]:
    return parse_join({"config": {"postgres_changes": list(items)}}).bindings


def binding(**item: object) -> Binding:
    (found,) = bindings(item)
    return found


def on_table(**item: object) -> Binding:
    return binding(schema="public", table="t", **item)


def named(name: str) -> dict[str, Any]:
    found = binding_of(name, {"public"})
    assert found is not None
    return found


def refused(found: Binding, columns: dict[str, Kind] = COLUMNS) -> str:
    with pytest.raises(BindingError) as caught:
        found.predicate(columns)
    return caught.value.message


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


@pytest.mark.parametrize(
    ("presence", "enabled"),
    [({}, True), ({"key": "me"}, True), ({"enabled": False}, False), (None, False), ("x", False)],
)
def test_presence_options_without_enabled_mean_that_it_is(presence: Any, enabled: bool) -> None:
    assert parse_join({"config": {"presence": presence}}).presence_enabled is enabled


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


# --- ids ----------------------------------------------------------------------------------------


def test_equal_bindings_share_an_id_and_others_do_not() -> None:
    first, second, other, live = bindings(
        {"event": "INSERT", "schema": "public", "table": "t"},
        {"table": "t", "event": "insert"},
        {"event": "UPDATE", "schema": "public", "table": "t"},
        {"event": "INSERT", "schema": "public", "table": "t", "live": True},
    )
    assert first.id == second.id
    assert len({first.id, other.id, live.id}) == 3


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


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "limit", "since", "é"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(json_values)
def test_an_id_fits_27_bits(value) -> None:
    assert 0 <= binding_id(value) < 2**27


# --- extras -------------------------------------------------------------------------------------


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


# --- errors -------------------------------------------------------------------------------------

UNABLE = "Unable to subscribe to changes with given parameters. "


def test_no_schema_and_no_table_is_refused_in_the_official_words() -> None:
    assert refused(binding(event="*", filter="id=eq.1")) == (
        "No subscription params provided. Please provide at least a `schema` or `table` "
        'to subscribe to: %{"event" => "*", "filter" => "id=eq.1"}'
    )


def test_a_token_in_a_binding_is_not_repeated() -> None:
    assert refused(binding(user_token="secret")).endswith("to subscribe to: <redacted>")


def test_a_filter_without_table_is_refused() -> None:
    assert refused(binding(schema="public", filter="id=eq.1")).startswith("No subscription params")


@pytest.mark.parametrize(
    "item", [{"schema": "*"}, {"schema": "public"}, {"schema": "public", "table": "*"}]
)
def test_a_selection_on_a_wildcard_is_refused_in_the_official_words(item) -> None:
    assert refused(binding(select=["id"], **item)) == (
        "Column selection is not supported for wildcard subscriptions. "
        "Provide an explicit schema and table name."
    )


@pytest.mark.parametrize("select", ["id", 5, {}, ["id", 5], [None], True])
def test_a_selection_that_is_no_list_of_names_is_refused_in_the_official_words(select) -> None:
    assert refused(on_table(select=select)) == (
        "Error parsing `select` params: expected a list of column name strings, "
        'e.g. select: ["col1", "col2"]'
    )


@pytest.mark.parametrize("select", [None, []])
def test_an_empty_selection_selects_everything(select) -> None:
    found = on_table(select=select)
    assert (found.select, found.error) == (None, None)


def test_an_unreadable_filter_is_refused_in_the_official_words() -> None:
    assert refused(on_table(filter="wrong")) == 'Error parsing `filter` params: ["wrong"]'


def test_a_table_that_is_not_published_is_named_in_the_official_words() -> None:
    assert binding(schema="public", event="insert").not_published() == (
        UNABLE + "Please check Realtime is enabled for the given connect parameters: "
        "[event: INSERT, schema: public, table: *, filters: [], select: nil]"
    )


def test_an_unknown_column_is_refused_in_the_official_words() -> None:
    found = on_table(event="INSERT", filter='nope=not.eq."a,b"', select=["id"])
    assert refused(found) == (
        UNABLE + "An exception happened so please check your connect parameters: "
        '[event: INSERT, schema: public, table: t, filters: [{"nope", "eq", "\\"a,b\\"", true}], '
        'select: ["id"]]. Exception: ERROR P0001 (raise_exception) invalid column for filter nope'
    )


def test_an_unknown_selected_column_is_refused_in_the_official_words() -> None:
    assert refused(on_table(select=["id", "nope"])).endswith(
        "Exception: ERROR P0001 (raise_exception) invalid column for select nope"
    )


def test_too_many_items_are_refused_in_the_official_words() -> None:
    items = ",".join(["1"] * 101)
    assert refused(on_table(filter=f"id=in.({items})")).endswith(
        "too many values for `in` filter. Maximum 100"
    )


def test_one_binding_too_many_carries_the_error_and_the_rest_are_dropped() -> None:
    found = bindings(*[{"table": f"t{number}"} for number in range(MAX_BINDINGS + 5)])
    assert len(found) == MAX_BINDINGS + 1
    assert [one.error is None for one in found] == [True] * MAX_BINDINGS + [False]


def test_a_binding_without_filter_takes_every_row() -> None:
    assert on_table().predicate(COLUMNS) == TRUE
    assert on_table(filter="  ").predicate(COLUMNS) == TRUE


def test_a_live_set_needs_every_event_and_a_snapshot_needs_inserts() -> None:
    def error(**item: object) -> str | None:
        return on_table(**item).error

    assert error(live=True) is error(live=True, event="*") is error(event="INSERT") is None
    assert error(live=True, event="INSERT") == LIVE_NEEDS_ALL_EVENTS
    assert error(live=True, event="delete", snapshot=True) == LIVE_NEEDS_ALL_EVENTS
    assert error(snapshot=True) is error(snapshot={"limit": 5}, event="insert") is None
    for event in ("UPDATE", "DELETE"):
        assert error(snapshot=True, event=event) == SNAPSHOT_NEEDS_INSERTS
    assert error(snapshot=False, live=False, event="UPDATE") is None


# --- whatever comes -----------------------------------------------------------------------------

KEYS = ["event", "schema", "table", "filter", "select", "since", "snapshot", "live"]
items = st.dictionaries(st.sampled_from(KEYS), json_values, max_size=8) | json_values
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


def test_filters_of_a_long_join_are_read_when_it_is_planned_with_the_same_words() -> None:
    wrong = {"schema": "public", "table": "t", "filter": "id"}
    (short,) = bindings(wrong)
    long = {"schema": "public", "table": "t", "filter": f"name=eq.{'x' * 16_000}"}
    *_, unread = bindings(long, long, wrong)
    assert short.error is not None and unread.error is None
    with pytest.raises(BindingError) as caught:
        unread.check()
    assert caught.value.message == short.error == refused(unread)
    assert bindings(long, long)[1].predicate(COLUMNS) == bindings(long)[0].predicate(COLUMNS)


def test_a_filter_that_is_too_long_is_refused_in_a_long_join_too() -> None:
    long = {"schema": "public", "table": "t", "filter": f"name=eq.{'x' * 17_000}"}
    found = bindings(long, long)
    assert {item.error for item in found} == {
        "Error parsing `filter` params: filter is longer than 16384 characters"
    }
