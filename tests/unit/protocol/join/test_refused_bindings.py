"""Wrong bindings are told in the official words."""

from __future__ import annotations

import pytest

from auth_rls.predicates.predicate import TRUE
from realtime.protocol.join import (
    LIVE_NEEDS_ALL_EVENTS,
    MAX_BINDINGS,
    SNAPSHOT_NEEDS_INSERTS,
    BindingError,
)
from tests.support.joins import (
    COLUMNS,
    binding,
    bindings,
    on_table,
    refused,
)

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
