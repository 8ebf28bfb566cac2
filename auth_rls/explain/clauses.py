"""Why a row passes or not: every policy of one permission, taken apart clause by clause.

Owns the explanation as a value: which policies apply and why the others do not, each clause's
verdict with the two sides that it compared, and which clause decided. A leaf's verdict comes from
`bind` and `evaluate`, so that the explanation cannot differ from the doors. Of a set it shows the
size and whether the value is a member, never the members.

Pure: no Django, no I/O. Rules, the row and the subject's values come from the caller.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from auth_rls.policy.rules import PolicyRule
from auth_rls.predicates.bind import MISSING, SetOf, ValueOf, bind
from auth_rls.predicates.describe import describe, describe_value
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.predicate import (
    All,
    Any_,
    Const,
    Not,
    Predicate,
    Ref,
    RefTest,
    Select,
    Test,
)

Row = Mapping[str, object]
Verdict = bool | None

WITHHELD = "withheld"
"""Stands for a value that the reader may not see."""


class Applicability(enum.StrEnum):
    """Whether a policy applies, and if not, why."""

    APPLIES = "applies"
    DISABLED = "disabled"
    BROKEN = "broken"
    AUDIENCE = "wrong audience"
    PERMISSION = "permission not held"
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy of the permission. `problem`, when given, is why it cannot be used; its rule then
    denies."""

    rule: PolicyRule
    source: str = "database"
    enabled: bool = True
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two sides of a clause, as text. `found` is the row's value, `wanted` the other side, and
    `source` its origin if it is not written in the policy itself. `size` and `contains` are set for
    sets only."""

    column: str
    operator: str
    found: str
    wanted: str
    source: str = ""
    size: int | None = None
    contains: Verdict = None


@dataclass(frozen=True, slots=True)
class Clause:
    """A node of the predicate. `kind` is all, any, not, test or constant; `text` is its
    description; `decides` marks the path to the clauses on which the whole verdict rests."""

    kind: str
    text: str
    verdict: Verdict
    decides: bool = False
    parts: tuple[Clause, ...] = ()
    comparison: Comparison | None = None


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """One policy. `standing` is whether it applies, under its name in the JSON output. `verdict` is
    that of the row, None for unknown, and is only set if `applies` is true; `check` is the
    condition of a change on the new row, if the policy has one."""

    name: str
    source: str
    audience: str
    mode: str
    standing: Applicability
    reason: str
    applies: bool
    verdict: Verdict = None
    decides: bool = False
    clause: Clause | None = None
    check: Clause | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The combined verdict of the policies, and the reason. A row only passes if it is True."""

    permission: str
    verdict: Verdict
    because: str
    policies: tuple[PolicyReport, ...]

    @property
    def allowed(self) -> bool:
        return self.verdict is True


def explain(
    permission: str,
    candidates: Iterable[Candidate],
    row: Row,
    *,
    holds_permission: bool,
    authenticated: bool,
    value_of: ValueOf,
    set_of: SetOf,
    new_row: bool = False,
) -> Explanation:
    """The verdict of the candidates, all of one permission, on `row` for one subject.

    With `new_row` it is about the new row of an add. The other arguments are those of `combine`
    and `bind`.
    """
    reporter = _Reporter(
        permission, row, holds_permission, authenticated, value_of, set_of, new_row
    )
    reports = [reporter.report(candidate) for candidate in candidates]
    permissive = [r for r in reports if r.applies and r.mode == "permissive"]
    restrictive = [r for r in reports if r.applies and r.mode != "permissive"]
    granted = _kleene(Any_, [r.verdict for r in permissive])
    verdict = _kleene(All, [granted, *(r.verdict for r in restrictive)]) if permissive else False
    against = [r for r in restrictive if r.verdict is not True]
    if verdict is True:
        deciding = [r for r in permissive if r.verdict is True]
        because = f"{_names(deciding)} {'lets' if len(deciding) == 1 else 'let'} the row through"
        because += ", and every restrictive policy agrees." if restrictive else "."
    elif not reports:
        deciding, because = [], f"There is no policy on {permission}, so it shows no row."
    elif not permissive:
        deciding, because = [], "No permissive policy applies, so no row passes."
    elif against:
        deciding = against
        plural = len(against) > 1
        because = (
            f"{_names(against)} {'are' if plural else 'is'} restrictive and not true of the row."
        )
    else:
        deciding, because = permissive, "No permissive policy that applies is true of the row."
    names = {id(report) for report in deciding}
    return Explanation(
        permission,
        verdict,
        because,
        tuple(replace(r, decides=True) if id(r) in names else r for r in reports),
    )


def together(explanations: Sequence[Explanation]) -> Explanation:
    """One explanation of several that must all let the row through: for a row in multi-table
    inheritance, those of its model, the first one, and of each ancestor. It is that of the first
    that does not let the row through, with the policies of all."""
    refusing = [each for each in explanations if each.verdict is not True]
    decisive = refusing[0] if refusing else explanations[0]
    policies = tuple(
        report if each is decisive else replace(report, decides=report.decides and not refusing)
        for each in explanations
        for report in each.policies
    )
    because = decisive.because
    if decisive is not explanations[0]:
        because = f"The row is one of {decisive.permission} as well. {because}"
    verdict = _kleene(All, [each.verdict for each in explanations])
    return Explanation(explanations[0].permission, verdict, because, policies)


def unasked(
    permission: str, candidates: Iterable[Candidate], *, allowed: bool, because: str
) -> Explanation:
    """The explanation for a subject for whom no policy is evaluated."""
    return Explanation(
        permission,
        allowed,
        because,
        tuple(_outline(candidate, Applicability.NOT_ASKED, "") for candidate in candidates),
    )


def withheld(explanation: Explanation, *, row: bool, subject: bool) -> Explanation:
    """The explanation without the values of the row, of the subject, or of both, for a reader who
    may not see them. The policies themselves stay."""

    def without(clause: Clause | None) -> Clause | None:
        return clause and _without_values(clause, row, subject)

    return replace(
        explanation,
        policies=tuple(
            replace(report, clause=without(report.clause), check=without(report.check))
            for report in explanation.policies
        ),
    )


@dataclass(frozen=True, slots=True)
class _Reporter:
    """Makes the reports of policies on one row for one subject."""

    permission: str
    row: Row
    holds_permission: bool
    authenticated: bool
    value_of: ValueOf
    set_of: SetOf
    new_row: bool

    def report(self, candidate: Candidate) -> PolicyReport:
        rule = candidate.rule
        concerned = rule.concerns(
            holds_permission=self.holds_permission, authenticated=self.authenticated
        )
        if not candidate.enabled:
            return _outline(candidate, Applicability.DISABLED, "It is switched off.")
        if candidate.problem is not None:
            # The denial that replaces the policy concerns the same subjects.
            said = _outline(candidate, Applicability.BROKEN, candidate.problem)
            return replace(said, applies=concerned, verdict=False)
        if not concerned:
            return _outline(candidate, *self._unconcerned(rule))
        clause = _marked(self.clause(rule.predicate(new_row=self.new_row)))
        check = None
        if rule.with_check is not None and not self.new_row:
            check = _marked(self.clause(rule.with_check))
        said = _outline(candidate, Applicability.APPLIES, "")
        return replace(said, applies=True, verdict=clause.verdict, clause=clause, check=check)

    def _unconcerned(self, rule: PolicyRule) -> tuple[Applicability, str]:
        if rule.audience == "permission":
            return Applicability.PERMISSION, f"The subject does not hold {self.permission}."
        return Applicability.AUDIENCE, "It is for those who are logged in."

    def clause(self, node: Predicate) -> Clause:
        """The node with its verdict, before the deciding clauses are marked."""
        if isinstance(node, Const):
            return Clause("constant", describe(node), node.value)
        if isinstance(node, Test):
            bound = bind(node, self.value_of, self.set_of)
            verdict = matcher(bound)(self.row)
            comparison = self._comparison(node, bound, verdict)
            return Clause("test", describe(node), verdict, comparison=comparison)
        if isinstance(node, RefTest):
            return self._ref_clause(node)
        if isinstance(node, Not):
            part = self.clause(node.part)
            verdict = None if part.verdict is None else not part.verdict
            return Clause("not", "not", verdict, parts=(part,))
        parts = tuple(map(self.clause, node.parts))
        verdict = _kleene(type(node), [part.verdict for part in parts])
        kind, text = ("all", "all of these") if isinstance(node, All) else ("any", "any of these")
        return Clause(kind, text, verdict, parts=parts)

    def _ref_clause(self, node: RefTest) -> Clause:
        """The clause for a value of the subject, which is compared like a column's."""
        bound = bind(node, self.value_of)
        verdict = bound.value if isinstance(bound, Const) else None
        name = str(node.ref)
        found = self.value_of(node.ref)
        row = {} if found is MISSING else {name: found}
        test = Test(name, node.op, node.value)
        of_subject = replace(self, row=row)
        compared = of_subject._comparison(test, bind(test, self.value_of), verdict)
        sources = ", ".join(filter(None, (name, compared.source)))
        return Clause("test", describe(node), verdict, comparison=replace(compared, source=sources))

    def _comparison(self, test: Test, bound: Predicate, verdict: Verdict) -> Comparison:
        value = test.value
        if test.column not in self.row:
            found = "not known"
        else:
            found = describe_value(self.row[test.column])
        source = ""
        if isinstance(value, Select):
            source = describe(Test(test.column, "in", value)).removeprefix(f"{test.column} is ")
        elif isinstance(value, Ref):
            source = str(value)
        elif isinstance(value, tuple):
            source = ", ".join(str(item) for item in value if isinstance(item, Ref))
        size, contains = None, None
        if test.op == "in":
            known = _members(bound)
            size, contains = (None if known is None else len(known)), verdict
        return Comparison(
            test.column, test.op, found, self._wanted(test, bound), source, size, contains
        )

    def _wanted(self, test: Test, bound: Predicate) -> str:
        """The other side of the comparison, with the subject's values, as text."""
        if test.op == "isnull":
            return "null" if test.value else "not null"
        if isinstance(test.value, Ref) and test.op != "in":
            return describe_value(bound.value if isinstance(bound, Test) else None)
        if test.op == "range":
            low, high = test.value
            return f"{self._end(test, low)} to {self._end(test, high)}"
        if test.op != "in":
            return describe_value(test.value)
        known = _members(bound)
        if known is None:
            return "null"
        return "1 value" if len(known) == 1 else f"{len(known)} values"

    def _end(self, test: Test, value: object) -> str:
        if not isinstance(value, Ref):
            return describe_value(value)
        bound = bind(Test(test.column, "exact", value), self.value_of)
        return describe_value(bound.value if isinstance(bound, Test) else None)


def _members(bound: Predicate) -> frozenset[object] | None:
    """The set that a bound `in` compares with; None if the subject's value is no list."""
    if isinstance(bound, Any_):
        bound = bound.parts[0]
    if isinstance(bound, Test) and isinstance(bound.value, frozenset):
        return bound.value
    return None


def _kleene(kind: type[All] | type[Any_], verdicts: list[Verdict]) -> Verdict:
    return matcher(kind(tuple(map(Const, verdicts))))({})


def _marked(clause: Clause) -> Clause:
    """The clause marked as deciding, with the parts on which its verdict rests: the first such part
    if one part settles the connective, else all parts with the same verdict."""
    same = [i for i, part in enumerate(clause.parts) if part.verdict is clause.verdict]
    if clause.kind == "not":
        same = [0]
    elif (clause.kind, clause.verdict) in (("any", True), ("all", False)):
        same = same[:1]
    parts = tuple(_marked(part) if i in same else part for i, part in enumerate(clause.parts))
    return replace(clause, decides=True, parts=parts)


def _outline(candidate: Candidate, standing: Applicability, reason: str) -> PolicyReport:
    rule = candidate.rule
    return PolicyReport(
        rule.name, candidate.source, rule.audience, rule.mode, standing, reason, applies=False
    )


def _names(reports: list[PolicyReport]) -> str:
    quoted = [f"“{report.name}”" for report in reports]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _without_values(clause: Clause, row: bool, subject: bool) -> Clause:
    compared = clause.comparison
    if compared is not None and row:
        compared = replace(compared, found=WITHHELD, contains=None)
    if compared is not None and subject and compared.source:
        compared = replace(compared, wanted=WITHHELD, size=None, contains=None)
        if compared.column.startswith("$"):
            compared = replace(compared, found=WITHHELD)
    parts = tuple(_without_values(part, row, subject) for part in clause.parts)
    return replace(clause, comparison=compared, parts=parts)
