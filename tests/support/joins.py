"""Bindings as a join reads them."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from auth_rls.predicates.kinds import Kind
from realtime.protocol.join import (
    Binding,
    BindingError,
    parse_join,
)

COLUMNS = {"id": Kind.INT, "name": Kind.TEXT}


def bindings(*items: object) -> tuple[Binding, ...]:
    return parse_join({"config": {"postgres_changes": list(items)}}).bindings


def binding(**item: object) -> Binding:
    (found,) = bindings(item)
    return found


def on_table(**item: object) -> Binding:
    return binding(schema="public", table="t", **item)


def refused(found: Binding, columns: dict[str, Kind] = COLUMNS) -> str:
    with pytest.raises(BindingError) as caught:
        found.predicate(columns)
    return caught.value.message


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


KEYS = ["event", "schema", "table", "filter", "select", "since", "snapshot", "live"]


items = st.dictionaries(st.sampled_from(KEYS), json_values, max_size=8) | json_values
