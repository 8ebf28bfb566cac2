"""What is written into a policy: a predicate, or an error that says where it is wrong."""

from __future__ import annotations

import json
from typing import Any

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.parse import PredicateError, TableSchema, parse
from auth_rls.predicates.predicate import columns
from tests.fuzz.feed import fuzzed

NOTE = TableSchema(
    "zoo.Note",
    {
        "id": ("id", Kind.INT),
        "owner": ("owner_id", Kind.INT),
        "title": ("title", Kind.TEXT),
        "is_public": ("is_public", Kind.BOOL),
        "price": ("price", Kind.DECIMAL),
        "ref": ("ref", Kind.UUID),
        "data": ("data", Kind.JSON),
    },
)
TABLES = {
    "zoo.Member": TableSchema(
        "zoo.Member", {"user": ("user_id", Kind.INT), "team_id": ("team_id", Kind.INT)}
    ),
    "zoo.Team": TableSchema("zoo.Team", {"id": ("id", Kind.INT), "name": ("name", Kind.TEXT)}),
}


def resolve(label: str) -> TableSchema:
    try:
        return TABLES[label]
    except KeyError:
        raise LookupError(f"no model {label!r}") from None


def as_json(data: str) -> Any:
    """As a JSONField's form would bring it."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data


@fuzzed("predicates")
def test_a_policy_is_a_predicate_or_an_error_that_says_what_is_wrong(data: str) -> None:
    try:
        predicate = parse(as_json(data), NOTE, resolve)
    except PredicateError as error:
        assert error.message
        return
    assert columns(predicate) <= {column for column, _ in NOTE.columns.values()}
