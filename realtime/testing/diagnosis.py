"""Why a change that a test waits for did not come, by the log, the triggers and the policies.

Runs in a database thread.
"""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError, connections, models

from auth_rls.access.snapshot import PolicySnapshot, permission_name
from auth_rls.explain import report
from auth_rls.sql.primary import primary
from auth_rls.subjects.subject import Subject
from realtime.event_log.table import read_captured, relations
from realtime.testing.visibility import answer
from realtime.wal import capture, triggers


def why_nothing(alias: str, asker: Any, since: int, model: type[models.Model] | None) -> str:
    """Lines for people about changes of `model` after the seq `since`, as `asker` gets them."""
    if model is None:
        return ""
    lines = [*_of_triggers(alias, model), *_of_the_log(alias, asker, since, model)]
    return "\n".join(lines)


def _of_triggers(alias: str, model: type[models.Model]) -> list[str]:
    table = capture.label(*capture.table_name_of(model))
    states = {str(t.state) for t in triggers.status(alias) if t.table == table}
    if states == {"installed"}:
        return []
    found = ", ".join(sorted(states)) or "missing"
    return [
        f"The capture triggers of {table} are {found}, so its writes are not captured: "
        "manage.py realtime_triggers install, or migrate."
    ]


def _of_the_log(alias: str, asker: Any, since: int, model: type[models.Model]) -> list[str]:
    schema, table = capture.table_name_of(model)
    label = model._meta.label
    entries = [row for row in read_captured(alias, 0) if row.seq == 0 or row.seq > since]
    events = [
        event
        for event in relations.events(entries)
        if (event.relation.schema, event.relation.table) == (schema, table)
    ]
    if not events:
        return [
            f"Nothing of {label} was captured since the join: was it written, and committed, to "
            f"the database {connections[alias].settings_dict['NAME']!r}?"
        ]
    lines = [f"Captured of {label} since the join: {', '.join(event.op for event in events)}."]
    if not PolicySnapshot.load().rules(model, "view"):
        lines.append(
            f"No policy on {permission_name(model, 'view')} lets anybody see these rows: make one "
            "in the test, or in the policies.py of the app."
        )
        return lines
    key = str(model._meta.pk.column)
    last = events[-1].new or events[-1].old
    value = None if last is None else last.get(key)
    rows: models.QuerySet[Any] = models.QuerySet(model, using=primary(model))
    try:
        instance = None if value is None else rows.filter(pk=value).first()
    except (ValueError, TypeError, DatabaseError):
        instance = None
    if instance is None:
        return lines
    found = answer(Subject.anonymous() if asker is None else asker, instance)
    verdict = "allowed" if found.allowed else "denied"
    return [*lines, f"{report.heading(found)}: {verdict}", *report.reasons(found)]
