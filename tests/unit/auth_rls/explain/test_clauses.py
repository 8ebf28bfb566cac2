"""An explanation says what was compared, what came of it, and which clause decided."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from auth_rls.explain.clauses import (
    WITHHELD,
    Applicability,
    Candidate,
    Clause,
    Comparison,
    Explanation,
    explain,
    unasked,
    withheld,
)
from auth_rls.explain.text import sides
from auth_rls.policy.rules import PolicyRule
from auth_rls.predicates.bind import MISSING
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    All,
    Any_,
    Not,
    Predicate,
    Ref,
    RefTest,
    Select,
    Test,
)

USER = Ref("user", ("id",), Kind.INT)
OWN = Test("owner_id", "exact", USER)
PUBLIC = Test("is_public", "exact", True)
TEAMS = Select("zoo.Member", "team_id", Test("user_id", "exact", USER), kind=Kind.INT)
IN_MY_TEAMS = Test("team_id", "in", TEAMS)
ROW = {"owner_id": 7, "is_public": False, "team_id": 3, "title": None, "score": 5}


def rule(using: Predicate, name: str = "a rule", **fields: Any) -> PolicyRule:
    return PolicyRule(
        name=name,
        audience=fields.pop("audience", "anyone"),
        mode=fields.pop("mode", "permissive"),
        using=using,
        **fields,
    )


def asked(
    *candidates: Candidate | PolicyRule | Predicate,
    user: object = 7,
    holds_permission: bool = False,
    authenticated: bool = True,
    **options: Any,
) -> Explanation:
    values: dict[str, object] = {"id": user, "list": [1, 5, None]}
    return explain(
        "zoo.view_note",
        [
            c
            if isinstance(c, Candidate)
            else Candidate(c if isinstance(c, PolicyRule) else rule(c, f"rule {n}"))
            for n, c in enumerate(candidates)
        ],
        ROW,
        holds_permission=holds_permission,
        authenticated=authenticated,
        value_of=lambda ref: values.get(ref.path[0], MISSING),
        set_of=lambda select: [1, 3],
        **options,
    )


def clause(predicate: Predicate, **options: Any) -> Clause:
    found = asked(predicate, **options).policies[0].clause
    assert found is not None
    return found


def compared(predicate: Predicate, **options: Any) -> Comparison:
    found = clause(predicate, **options).comparison
    assert found is not None
    return found


def leaves(node: Clause) -> Iterator[Clause]:
    if not node.parts:
        yield node
    for part in node.parts:
        yield from leaves(part)


def deciding(node: Clause) -> list[str]:
    return [leaf.text for leaf in leaves(node) if leaf.decides]


def test_a_clause_shows_both_sides_and_where_the_other_one_comes_from() -> None:
    assert compared(OWN) == Comparison("owner_id", "exact", "7", "7", "$user.id")
    assert compared(OWN, user=8).wanted == "8"
    assert compared(PUBLIC) == Comparison("is_public", "exact", "false", "true")


def test_a_reference_that_is_compared_alone_shows_the_subjects_value_and_withholds_it() -> None:
    test = RefTest(Ref("claims", ("id",), Kind.INT), "gte", 5)
    found = compared(test)
    assert (found.column, found.found, found.wanted) == ("$claims.id", "7", "5")
    assert clause(test).verdict is True
    assert clause(test, user=MISSING).verdict is None
    hidden = withheld(asked(test), row=False, subject=True).policies[0].clause
    assert hidden is not None and hidden.comparison is not None
    assert (hidden.comparison.found, hidden.comparison.wanted) == (WITHHELD, WITHHELD)
    assert clause(test).text == "the token's id is at least 5"


def test_what_the_subject_lacks_is_null_and_the_clause_unknown() -> None:
    assert compared(OWN, user=MISSING).wanted == "null"
    assert clause(OWN, user=MISSING).verdict is None


def test_a_null_in_the_row_is_shown_as_null() -> None:
    assert compared(Test("title", "exact", "x")).found == "null"
    assert clause(Test("title", "exact", "x")).verdict is None
    assert compared(Test("title", "isnull", True)).wanted == "null"


def test_a_column_that_only_the_database_knows_is_said_to_be_unknown() -> None:
    assert compared(Test("computed", "exact", 1)).found == "not known"


def test_a_set_is_told_by_its_size_and_never_listed() -> None:
    found = compared(IN_MY_TEAMS)
    assert (found.found, found.wanted, found.size, found.contains) == ("3", "2 values", 2, True)
    assert found.source == "one of team_id in zoo.Member where user_id is the user's id"
    assert compared(Test("score", "in", TEAMS)).contains is False


def test_a_list_of_the_subject_with_a_null_leaves_the_rest_unknown() -> None:
    listed = Ref("claims", ("list",), Kind.INT)
    assert compared(Test("score", "in", listed)).contains is True
    other = compared(Test("team_id", "in", listed))
    assert (other.size, other.contains, other.source) == (2, None, "$claims.list")
    assert compared(Test("team_id", "in", Ref("claims", ("id",), Kind.INT))).wanted == "null"


def test_a_range_shows_both_its_ends() -> None:
    found = compared(Test("score", "range", (1, USER)))
    assert (found.wanted, found.source) == ("1 to 7", "$user.id")
    assert compared(Test("score", "range", (1, USER)), user=None).wanted == "1 to null"


def test_of_any_the_first_true_part_decides() -> None:
    tree = clause(Any_((PUBLIC, OWN, IN_MY_TEAMS)))
    assert tree.verdict is True
    assert deciding(tree) == ["owner_id is the user's id"]


def test_of_all_the_first_false_part_decides() -> None:
    tree = clause(All((OWN, PUBLIC, Test("score", "exact", 1))))
    assert tree.verdict is False
    assert deciding(tree) == ["is_public is true"]


def test_where_every_part_had_to_agree_all_decide() -> None:
    assert len(deciding(clause(Any_((PUBLIC, Test("score", "exact", 1)))))) == 2
    assert len(deciding(clause(All((OWN, IN_MY_TEAMS))))) == 2


def test_an_unknown_is_decided_by_the_unknown_parts() -> None:
    unknown = Test("title", "exact", "x")
    tree = clause(All((OWN, unknown)))
    assert tree.verdict is None
    assert deciding(tree) == ["title is “x”"]
    tree = clause(Not(Any_((PUBLIC, unknown))))
    assert (tree.verdict, deciding(tree)) == (None, ["title is “x”"])


def test_a_deep_predicate_is_explained_in_one_pass() -> None:
    deep: Predicate = OWN
    for _ in range(30):
        deep = All((Any_((deep,)),))
    assert clause(deep).verdict is True


def test_why_a_policy_does_not_apply_is_said() -> None:
    reports = asked(
        Candidate(rule(TRUE), enabled=False),
        rule(TRUE, audience="permission"),
        rule(TRUE, audience="authenticated"),
        Candidate(rule(FALSE), problem="using: unknown column 'x'"),
        authenticated=False,
    ).policies
    assert [report.standing for report in reports] == [
        Applicability.DISABLED,
        Applicability.PERMISSION,
        Applicability.AUDIENCE,
        Applicability.BROKEN,
    ]
    assert [report.applies for report in reports] == [False, False, False, True]
    assert reports[1].reason == "The subject does not hold zoo.view_note."
    assert reports[3].reason == "using: unknown column 'x'"


def test_the_policy_that_lets_the_row_through_decides() -> None:
    found = asked(PUBLIC, OWN, rule(TRUE, mode="restrictive"))
    assert found.allowed
    assert [report.decides for report in found.policies] == [False, True, False]
    assert found.because == "“rule 1” lets the row through, and every restrictive policy agrees."


def test_a_restrictive_policy_that_is_not_true_decides() -> None:
    found = asked(OWN, rule(PUBLIC, "wall", mode="restrictive"))
    assert found.verdict is False
    assert [report.decides for report in found.policies] == [False, True]
    assert found.because == "“wall” is restrictive and not true of the row."


def test_a_broken_restrictive_policy_denies() -> None:
    broken = Candidate(rule(FALSE, "wall", mode="restrictive"), problem="using: no such column")
    assert asked(OWN, broken).because == "“wall” is restrictive and not true of the row."
    assert not asked(OWN, broken).allowed


@pytest.mark.parametrize(
    ("candidates", "because"),
    [
        ([], "There is no policy on zoo.view_note, so it shows no row."),
        ([rule(TRUE, mode="restrictive")], "No permissive policy applies, so no row passes."),
        ([PUBLIC], "No permissive policy that applies is true of the row."),
    ],
)
def test_a_denial_without_a_culprit_says_so(candidates: list[Any], because: str) -> None:
    found = asked(*candidates)
    assert (found.allowed, found.because) == (False, because)


def test_an_add_asks_the_check_and_a_change_shows_it_beside() -> None:
    both = rule(OWN, with_check=PUBLIC)
    (report,) = asked(both).policies
    assert report.verdict is True and report.check is not None and report.check.verdict is False
    (report,) = asked(both, new_row=True).policies
    assert report.verdict is False and report.check is None


def test_who_is_not_asked_gets_no_clauses() -> None:
    found = unasked("zoo.view_note", [Candidate(rule(OWN))], allowed=True, because="A superuser.")
    assert found.allowed
    assert (
        found.policies[0].standing is Applicability.NOT_ASKED and found.policies[0].clause is None
    )


@pytest.mark.parametrize(("row", "subject"), [(True, True), (True, False), (False, True)])
def test_values_can_be_withheld_while_the_policies_stay(row: bool, subject: bool) -> None:
    found = asked(Any_((OWN, IN_MY_TEAMS, Test("score", "exact", 9))))
    tree = withheld(found, row=row, subject=subject).policies[0].clause
    assert tree is not None and tree.verdict is True
    comparisons = [leaf.comparison for leaf in leaves(tree) if leaf.comparison is not None]
    assert [c.found for c in comparisons] == ([WITHHELD] * 3 if row else ["7", "3", "5"])
    own, teams, literal = comparisons
    assert (own.wanted, teams.size) == ((WITHHELD, None) if subject else ("7", 2))
    assert literal.wanted == "9"
    if subject:
        assert "2" not in sides(teams) and "withheld" in sides(teams)
