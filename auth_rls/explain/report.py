"""An answer as lines for people: the verdict, the policies with their clauses, the doors.

Owns the layout of the whole; `text` has that of an explanation. Evaluates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from auth_rls.explain.doors import DoorVerdict
from auth_rls.explain.questions import Answer
from auth_rls.explain.text import lines

POLICIES = "Policies (> marks what decided)"


def heading(answer: Answer) -> str:
    """The subject, permission and row: "alice (user 1), app.view_note on app.Note 3 “Milk”"."""
    row = f"{answer.model} {answer.pk} “{answer.row}”"
    return f"{answer.asker}, {answer.permission} on {row}"


def said(door: DoorVerdict) -> str:
    """A door's answer in words."""
    if door.allowed is None:
        return f"not asked: {door.note}"
    return "allowed" if door.allowed else f"denied{door.note and f': {door.note}'}"


def reasons(answer: Answer) -> Iterator[str]:
    """Everything below the verdict."""
    yield answer.explanation.because
    if answer.doubt:
        yield answer.doubt
    if answer.explanation.policies:
        yield POLICIES
    yield from lines(answer.explanation)
    yield "Doors"
    for door in answer.doors:
        yield f"    {door.door:<10} {said(door)}"
