"""The stream as a door for explanations: whether an event of a row would be delivered, and what may
be done on a private topic.

Works as a join does: it plans a subscription to the row's table, makes the row's image as the
capture trigger does, and matches the two. Runs in a database thread; sends nothing and records
nothing.
"""

from __future__ import annotations

from dataclasses import astuple

from django.db import connections
from django.db.models import BinaryField
from django.db.models.expressions import RawSQL

from auth_rls.explain import doors
from auth_rls.predicates.evaluate import matcher
from auth_rls.sets.reader import read_members
from realtime.event_log.event import RowImage, row_of
from realtime.models import Topic
from realtime.protocol.join import Binding
from realtime.subscriptions.planner import Planner
from realtime.wal import published, row_images


def connect() -> None:
    """Register this door for explanations."""
    doors.register("stream", stream)


def stream(question: doors.Question) -> bool | str:
    """Whether a change that left the row as it is now would be delivered to the subject, or why
    the stream cannot be asked."""
    if isinstance(question.instance, Topic):
        return _on_topic(question, question.instance.topic)
    if question.action != "view":
        return "it delivers rows to view only"
    entry = next((e for e in published.published() if e.model is question.model), None)
    if entry is None:
        return "the model is not published"
    if question.refused:
        return False
    binding = Binding(id=0, schema=entry.schema, table=entry.table)
    plan = Planner().plan(question.subject, [binding])
    if not plan.subscriptions:
        return f"a join is refused: {plan.problems[0]}"
    (subscription,) = plan.subscriptions
    row = _image(question)
    # The sets as the stream reads them, before changes in the log move them.
    judge = matcher(subscription.rls, lambda select: read_members(select, question.rows.db))
    return row is not None and judge(row) is True


def _on_topic(question: doors.Question, topic: str) -> bool:
    """Whether a channel on the private topic may do it."""
    if question.refused:
        return False
    rights = astuple(Planner().rights(question.subject, topic))
    return bool(dict(zip(Topic.row_actions, rights, strict=True))[question.action])


def _image(question: doors.Question) -> RowImage | None:
    """The row as the log would have it; None when it is gone."""
    relation = published.relation_for(question.model)
    rows = question.rows
    with row_images.printing(connections[rows.db]):
        sql = row_images.expression(rows.db, question.model, relation)
        image = RawSQL(sql.replace("%", "%%"), [], output_field=BinaryField())
        # Not an annotation: its name could be that of a field.
        raw = rows.values_list(image, flat=True).first()
    if raw is None:
        return None
    return row_of(raw, relation)
