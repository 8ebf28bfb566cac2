"""Policies combine as in PostgreSQL: one permissive lets in, every restrictive must agree."""

from __future__ import annotations

from itertools import product

import pytest

from auth_rls.policy.rules import PolicyRule, combine
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.predicate import FALSE, TRUE, UNKNOWN, Predicate, Test

OWN = Test("owner_id", "exact", 7)
PUBLIC = Test("is_public", "exact", True)


def rule(using: Predicate, mode: str = "permissive", audience: str = "anyone") -> PolicyRule:
    return PolicyRule("a rule", audience, mode, using)


def passes(
    *rules: PolicyRule,
    row: dict[str, object] | None = None,
    holds_permission: bool = False,
    authenticated: bool = False,
    new_row: bool = False,
) -> bool | None:
    predicate = combine(
        rules, holds_permission=holds_permission, authenticated=authenticated, new_row=new_row
    )
    return matcher(predicate)(row or {})


def test_without_a_policy_nothing_passes() -> None:
    assert combine([], holds_permission=True, authenticated=True) == FALSE


def test_restrictive_policies_alone_let_nothing_pass() -> None:
    assert passes(rule(TRUE, "restrictive"), authenticated=True) is False


def test_one_permissive_policy_is_enough() -> None:
    row = {"owner_id": 8, "is_public": True}
    assert passes(rule(OWN), rule(PUBLIC), row=row) is True
    assert passes(rule(OWN), row=row) is False


def test_every_restrictive_policy_must_agree() -> None:
    both = (rule(TRUE), rule(OWN, "restrictive"), rule(PUBLIC, "restrictive"))
    assert passes(*both, row={"owner_id": 7, "is_public": True}) is True
    assert passes(*both, row={"owner_id": 7, "is_public": False}) is False


def test_unknown_is_not_true() -> None:
    assert passes(rule(UNKNOWN)) is None
    assert passes(rule(TRUE), rule(UNKNOWN, "restrictive")) is None
    assert passes(rule(UNKNOWN), rule(TRUE)) is True


@pytest.mark.parametrize(
    ("audience", "holds", "authenticated"),
    list(product(["permission", "authenticated", "anyone"], [True, False], [True, False])),
)
def test_a_policy_counts_only_for_its_audience(
    audience: str, holds: bool, authenticated: bool
) -> None:
    expected = {"permission": holds, "authenticated": authenticated, "anyone": True}[audience]
    asked = {"holds_permission": holds, "authenticated": authenticated}
    assert passes(rule(TRUE, audience=audience), **asked) is expected
    restricted = passes(rule(TRUE), rule(FALSE, "restrictive", audience), **asked)
    assert restricted is not expected


def test_what_is_not_known_never_lets_in() -> None:
    asked = {"holds_permission": True, "authenticated": True}
    assert passes(rule(TRUE, audience="friends"), **asked) is False
    assert passes(rule(TRUE), rule(FALSE, "restrictive", "friends"), **asked) is False
    assert passes(rule(TRUE, mode="generous"), **asked) is False


def test_a_new_row_is_checked_by_with_check_or_else_by_using() -> None:
    strict = PolicyRule("strict", "anyone", "permissive", TRUE, OWN)
    row = {"owner_id": 8}
    assert passes(strict, row=row) is True
    assert passes(strict, row=row, new_row=True) is False
    assert passes(rule(OWN), row=row, new_row=True) is False
