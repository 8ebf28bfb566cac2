"""Helpers for tests of policies: make a policy, make a user, get the verdict of every door."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission, User
from django.db import connection, models

from auth_rls import Subject, visible
from auth_rls.access.authority import row_predicate
from auth_rls.backends import PolicyBackend
from auth_rls.models import Policy
from auth_rls.predicates.evaluate import matcher
from auth_rls.sql.rows import row_of
from tests.zoo.models import Note


def permission(name: str) -> Permission:
    app_label, codename = name.split(".")
    return Permission.objects.get(content_type__app_label=app_label, codename=codename)


def policy(
    using: Any = None, *, on: str = "zoo.view_note", name: str | None = None, **fields: Any
) -> Policy:
    """A policy, saved without being checked. `audience` is "anyone" by default."""
    fields.setdefault("audience", "anyone")
    made = Policy(
        name=name or f"policy {Policy.objects.count() + 1}",
        permission=permission(on),
        using=using,
        **fields,
    )
    made.save_base(raw=True, force_insert=True)
    return made


def user(name: str = "ada", *permissions: str, **fields: Any) -> User:
    made = User.objects.create(username=name, **fields)
    made.user_permissions.add(*map(permission, permissions))
    return made


def drop_the_score() -> None:
    """The table of notes falls behind its model, until the test's transaction is undone."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            # The triggers read the column.
            cursor.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'zoo_note'"
            )
            for (name,) in cursor.fetchall():
                cursor.execute(f'DROP TRIGGER "{name}"')
        cursor.execute("ALTER TABLE zoo_note RENAME COLUMN score TO former_score")


def fresh(instance: models.Model) -> Any:
    """The same row as a new object, without caches."""
    return type(instance).objects.get(pk=instance.pk)


def seen(asker: Any) -> set[str]:
    """Titles of the notes that `asker`, a Subject or a Django user, may see: by every door, which
    must agree."""
    subject = asker if isinstance(asker, Subject) else Subject.from_user(asker)
    by_queryset = set(visible(Note.objects.all(), asker).values_list("title", flat=True))
    match = matcher(row_predicate(subject, Note))
    by_stream = {note.title for note in Note.objects.all() if match(row_of(note)) is True}
    assert by_stream == by_queryset
    if not isinstance(asker, Subject):
        backend = PolicyBackend()
        by_object = {
            note.title
            for note in Note.objects.all()
            if asker.is_superuser or backend.has_perm(asker, "zoo.view_note", note)
        }
        assert by_object == by_queryset
    return by_queryset
