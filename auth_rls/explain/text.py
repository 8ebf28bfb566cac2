"""Explanations as lines of text and as JSON values.

Owns the layout. Pure: no Django, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from auth_rls.explain.clauses import (
    WITHHELD,
    Clause,
    Comparison,
    Explanation,
    PolicyReport,
    Verdict,
)

_WORDS = {True: "true", False: "false", None: "unknown"}


def lines(explanation: Explanation) -> Iterator[str]:
    """Each policy with its clauses below it. A `>` marks what decided."""
    for report in explanation.policies:
        yield _head(report)
        if report.reason:
            yield f"      {report.reason}"
        if report.clause is not None:
            yield from _tree(report.clause, 1, decisive=report.decides)
        if report.check is not None:
            yield f"      asked of the new row of a change (of this row as it is: {_said(report)}):"
            yield from _tree(report.check, 2, decisive=False)


def word(verdict: Verdict) -> str:
    """A verdict as one word: true, false or unknown."""
    return _WORDS[verdict]


def sides(comparison: Comparison) -> str:
    """Both sides of a comparison: "owner_id is 7; $user.id is 8"."""
    found = f"{comparison.column} is {comparison.found}"
    if comparison.operator == "in":
        if comparison.size is None and comparison.wanted != WITHHELD:
            return f"{found}; {comparison.source or 'the list'} is {comparison.wanted}"
        within = {True: "it is among", False: "it is not among", None: "unknown whether among"}
        values = "the 1 value" if comparison.size == 1 else f"the {comparison.size} values"
        if comparison.size is None:
            values = f"values that are {WITHHELD}"
        return f"{found}; {within[comparison.contains]} {values}"
    if not comparison.source:
        return found
    if comparison.operator == "range":
        return f"{found}; the range is {comparison.wanted}"
    return f"{found}; {comparison.source} is {comparison.wanted}"


def as_json(explanation: Explanation) -> dict[str, Any]:
    """The whole explanation as JSON values."""
    return {"allowed": explanation.allowed, **asdict(explanation)}


def _said(report: PolicyReport) -> str:
    return word(report.check.verdict) if report.check is not None else ""


def _head(report: PolicyReport) -> str:
    mark = ">" if report.decides else " "
    said = str(report.standing)
    if report.applies and report.clause is not None:
        said = word(report.verdict)
    about = f"{report.mode}, for {_AUDIENCES.get(report.audience, report.audience)}"
    return f"  {mark} {report.name}: {said}  ({about}; {report.source})"


_AUDIENCES = {
    "permission": "permission holders",
    "authenticated": "logged-in users",
    "anyone": "anyone",
}


def _tree(clause: Clause, depth: int, *, decisive: bool) -> Iterator[str]:
    mark = ">" if decisive and clause.decides else " "
    yield f"  {mark} {'    ' * depth}{word(clause.verdict):<7}  {clause.text}"
    if clause.comparison is not None:
        yield f"    {'    ' * depth}         {sides(clause.comparison)}"
    for part in clause.parts:
        yield from _tree(part, depth + 1, decisive=decisive)
