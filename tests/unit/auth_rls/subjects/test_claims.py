"""Claims are found by name before they are found by path, and compared as JSON compares."""

from __future__ import annotations

from typing import Any

import pytest

from auth_rls.subjects.claims import claim_at, put_claim, same_json


@pytest.mark.parametrize(
    ("claims", "path", "found"),
    [
        ({"a": 1}, "a", 1),
        ({"a": 1}, "b", None),
        ({"a": {"b": {"c": 1}}}, "a.b.c", 1),
        ({"a.b": {"c": 1}, "a": {"b": {"c": 2}}}, "a.b.c", 1),
        ({"a.b.c": 0, "a.b": {"c": 1}}, "a.b.c", 0),
        ({"a.b": {"x": 1}, "a": {"b": {"c": 2}}}, "a.b.c", 2),
        ({"a": {"b.c": 1}}, "a.b.c", 1),
        ({"a": "text"}, "a.b", None),
        ({"a": ["b"]}, "a.b", None),
        ({"a": ["b"]}, "a.0", None),
        ({"a": {"b": None}}, "a.b", None),
        ({"": {"a": 1}}, ".a", None),
        ({"a": {"": 1}}, "a.", 1),
        ({"https://x.example/role": "r"}, "https://x.example/role", "r"),
        ({"cognito:groups": ["g"]}, "cognito:groups", ["g"]),
    ],
)
def test_the_longest_names_count(claims: Any, path: str, found: Any) -> None:
    assert claim_at(claims, path) == found


@pytest.mark.parametrize("path", ["a", "a.b", "a.b.c", "https://x.example/role", "cognito:groups"])
def test_what_is_put_is_found(path: str) -> None:
    claims: dict[str, Any] = {"a": "in the way"} if "." in path else {}
    put_claim(claims, path, "x")
    assert claim_at(claims, path) == "x"


def test_what_is_put_keeps_its_neighbours() -> None:
    claims: dict[str, Any] = {"a": {"b": 1}}
    put_claim(claims, "a.c", 2)
    assert claims == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        ("a", "A", False),
        ([1, "a"], (1, "a"), True),
        ([1], [True], False),
        ([1], [1, 2], False),
        ({"a": [True]}, {"a": [1]}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (None, 0, False),
        ("1", 1, False),
    ],
)
def test_values_are_the_same_where_json_has_them_so(one: Any, other: Any, same: bool) -> None:
    assert same_json(one, other) is same and same_json(other, one) is same
