"""`policy_matrix`: who may do what to which rows, as a table for snapshot tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import models

from auth_rls.explain import askers, report
from auth_rls.subjects.subject import Subject
from realtime.testing.visibility import answer

YES, NO = "yes", "-"


def policy_matrix(
    users: Mapping[str, Any] | Iterable[Any],
    rows: Mapping[str, models.Model] | Iterable[models.Model],
    actions: Sequence[str],
) -> str:
    """A table with a line for each row and action, and a column for each user: "yes" where every
    door allows it, "-" where every door refuses.

    `users` are Django users or Subjects, `rows` model instances, `actions` such as "view" and
    "change". Each may be a dict, which gives the names; else a user is called by its user name, a
    subject by its role and user id, and a row by its model and text. Keys are in no name that is
    made here, so the table is the same on every run.

    Raises AssertionError where the doors do not agree, and SetupError as `assert_visible` does.
    """
    columns = _named(users, _user_name)
    lines = [["", "", *columns]]
    for label, instance in _named(rows, _row_name).items():
        for place, action in enumerate(actions):
            cells = [_cell(user, instance, action) for user in columns.values()]
            lines.append([label if place == 0 else "", action, *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(user: Any, instance: models.Model, action: str) -> str:
    found = answer(user, instance, action)
    if not found.agree:
        text = "\n".join(report.reasons(found))
        raise AssertionError(f"{report.heading(found)}: the doors do not agree.\n{text}")
    return YES if found.allowed else NO


def _named(given: Any, name_of: Any) -> dict[str, Any]:
    """What was given, by name: a name that comes again gets a number."""
    if isinstance(given, Mapping):
        return {str(name): item for name, item in given.items()}
    found: dict[str, Any] = {}
    seen: Counter[str] = Counter()
    for item in given:
        name = name_of(item)
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} ({seen[name]})"] = item
    return found


def _user_name(user: Any) -> str:
    if isinstance(user, Subject):
        if user.user is not None:
            return str(user.user.get_username())
        return user.role if user.user_id is None else f"{user.role} {user.user_id}"
    return str(user.get_username()) or askers.asker_for(user).subject.role


def _row_name(instance: models.Model) -> str:
    label = instance._meta.label
    # Django's own text of a row has its key in it.
    if type(instance).__str__ is models.Model.__str__:
        return label
    return f"{label} “{instance}”"
