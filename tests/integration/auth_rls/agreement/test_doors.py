"""One truth, several doors: whatever the policies, rows and subjects, they answer alike.

The stream matches a row as the triggers captured it, in Python; the queryset lets the database
decide; has_perm asks for one stored row. Random worlds are built and every door is asked about
every row.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import transaction
from hypothesis import HealthCheck, given, settings

from auth_rls import visible
from auth_rls.access.authority import row_predicate
from auth_rls.predicates.evaluate import matcher
from auth_rls.sql.columns import columns_of
from auth_rls.sql.rows import row_of
from realtime.event_log.event import RowImage
from realtime.models import WalEntry
from tests.support.note_worlds import (
    CLAIMS,
    MEMBERS,
    NOTES,
    POLICIES,
    world,
)
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db


def captured() -> dict[int, RowImage]:
    """The notes as the log has them: by primary key, the images the triggers wrote."""
    kinds = {name: column.kind for name, column in columns_of(Note).items()}
    entries = WalEntry.objects.filter(table_name=Note._meta.db_table)
    return {
        int(key): RowImage(image.encode(), kinds)
        for key, image in entries.values_list("pk_text", "new")
    }


async def awaited(asker: Any, notes: list[Note]) -> set[int]:
    """The notes that an asynchronous view would show."""
    return {note.pk for note in notes if await asker.ahas_perm("zoo.view_note", note)}


@pytest.mark.slow
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(policies=POLICIES, notes=NOTES, members=MEMBERS, claims=CLAIMS)
def test_every_door_gives_the_same_answer(
    policies: list[Any], notes: list[Any], members: list[Any], claims: dict[str, Any]
) -> None:
    with transaction.atomic():
        askers = world(policies, notes, members, claims)
        stored = list(Note.objects.order_by("pk"))
        images = captured()
        assert set(images) == {note.pk for note in stored}
        for subject, asker in askers:
            match = matcher(row_predicate(subject, Note))
            by_stream = {pk for pk, row in images.items() if match(row) is True}
            assert by_stream == {note.pk for note in stored if match(row_of(note)) is True}
            by_queryset = set(visible(Note.objects.all(), subject).values_list("pk", flat=True))
            assert by_stream == by_queryset
            if asker is not None:
                if asker.pk is not None:
                    asker = User.objects.get(pk=asker.pk)
                by_object = {n.pk for n in stored if asker.has_perm("zoo.view_note", n)}
                assert by_object == by_queryset
                assert async_to_sync(awaited)(asker, stored) == by_queryset
        transaction.set_rollback(True)


def test_the_worlds_are_not_all_black_or_white() -> None:
    """The test above is worth something only if rows are both shown and hidden."""
    note = {"title": "a", "owner_id": 1, "created": datetime(2025, 1, 1, tzinfo=UTC)}
    shown = {"audience": "permission", "mode": "permissive", "using": {"owner": "$user.id"}}
    askers = world([shown], [note, {"title": "b"}], [], {})
    answers = [visible(Note.objects.all(), subject).count() for subject, _ in askers]
    assert answers == [1, 0, 2, 0, 2, 0, 0, 1]
