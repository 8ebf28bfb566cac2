"""What tests do in the database of the server, through the ORM and around it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection, models, transaction

import realtime
from auth_rls import Subject, visible
from auth_rls.models import Policy
from realtime.models import DeadLetter, LogHead, WalEntry
from realtime.ops.status import read_numbering
from tests.zoo.models import Note


def _model(name: str) -> type[models.Model]:
    return apps.get_model(name) if "." in name else apps.get_model("zoo", name)


def user(name: str, **fields: Any) -> int:
    return get_user_model().objects.create(username=name, **fields).pk


def change_user(pk: int, **fields: Any) -> None:
    person = get_user_model().objects.get(pk=pk)
    for field, value in fields.items():
        setattr(person, field, value)
    person.save()


def grant(user: int, permission: str = "view_note") -> None:
    person = get_user_model().objects.get(pk=user)
    person.user_permissions.add(Permission.objects.get(codename=permission))


def revoke(user: int, permission: str = "view_note") -> None:
    person = get_user_model().objects.get(pk=user)
    person.user_permissions.remove(Permission.objects.get(codename=permission))


def policy(
    name: str,
    using: Any,
    permission: str = "view_note",
    audience: str = "authenticated",
    mode: str = "permissive",
    enabled: bool = True,
) -> int:
    return Policy.objects.create(
        name=name,
        permission=Permission.objects.get(codename=permission),
        audience=audience,
        mode=mode,
        using=using,
        enabled=enabled,
    ).pk


def broadcast(topic: str, event: str, payload: Any, **options: bool) -> None:
    realtime.broadcast(topic, event, payload, **options)


def change_policy(name: str, **fields: Any) -> None:
    rule = Policy.objects.get(name=name)
    for field, value in fields.items():
        setattr(rule, field, value)
    rule.save()


def note(**fields: Any) -> int:
    """A note; `owner` is the key of a user."""
    if "owner" in fields:
        fields["owner_id"] = fields.pop("owner")
    return Note.objects.create(**fields).pk


def create(model: str, **fields: Any) -> int:
    return _model(model)._default_manager.create(**fields).pk


def change(model: str, pk: int, **fields: Any) -> int:
    return _model(model)._default_manager.filter(pk=pk).update(**fields)


def delete(model: str, pk: int) -> int:
    return _model(model)._default_manager.get(pk=pk).delete()[0]


def many(model: str, rows: list[dict[str, Any]]) -> int:
    """One `bulk_create`."""
    kind = _model(model)
    return len(kind._default_manager.bulk_create([kind(**fields) for fields in rows]))


def regretted_note(**fields: Any) -> None:
    """A note in a transaction that is rolled back."""
    with transaction.atomic():
        note(**fields)
        transaction.set_rollback(True)


def write_notes(writer: int, count: int, owners: list[int], per_transaction: int = 1) -> int:
    """`count` notes, each in its owner's name in turn, titled "<writer>:<number>"."""
    for start in range(0, count, per_transaction):
        with transaction.atomic():
            for number in range(start, min(start + per_transaction, count)):
                owner = owners[number % len(owners)]
                Note.objects.create(owner_id=owner, title=f"{writer}:{number}")
    return count


def visible_rows(user: int | None, columns: list[str], **conditions: Any) -> list[dict[str, Any]]:
    """The notes that this user may see (nobody: `anon`) and the conditions let through, by a query
    of this moment."""
    person = get_user_model().objects.filter(pk=user).first() if user is not None else None
    subject = Subject.from_user(person) if person else Subject.anonymous()
    notes = visible(Note.objects.filter(**conditions), subject)
    return list(notes.order_by("pk").values(*columns))


def prune() -> int:
    """Drops every numbered entry of the log."""
    return WalEntry.objects.exclude(seq=None).delete()[0]


def new_epoch() -> None:
    """The log begins anew, as after a restore."""
    LogHead.objects.update(epoch=uuid4().hex)


def sql(statement: str, parameters: list[Any] | None = None) -> list[list[Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or [])
        return [list(row) for row in cursor.fetchall()] if cursor.description else []


def head() -> list[Any]:
    """The epoch and the last number given."""
    return list(LogHead.objects.values_list("epoch", "seq").get())


def backlog() -> int:
    """How many captured changes are not numbered yet."""
    return WalEntry.objects.filter(seq__isnull=True).count()


def numbering() -> list[int]:
    """How many captured changes wait for their numbers, and for how many milliseconds the oldest of
    them does, as the health check says it."""
    found = read_numbering("default")
    return [found.backlog, found.lag_ms]


def log(table: str = "zoo_note") -> list[list[Any]]:
    """The log of one table in seq order: seq, commit_us, op, key."""
    entries = WalEntry.objects.filter(table_name=table, seq__isnull=False).order_by("seq")
    return [list(row) for row in entries.values_list("seq", "commit_us", "op", "pk_text")]


def numbers() -> list[int]:
    """Every number ever given, in order of capture."""
    return list(WalEntry.objects.exclude(seq=None).order_by("id").values_list("seq", flat=True))


def dead_letters(handler: str) -> list[int]:
    """The numbers of the changes that this handler gave up."""
    return list(DeadLetter.objects.filter(handler=handler).values_list("seq", flat=True))


def reconnect() -> None:
    """The connection did not outlive its database."""
    connection.close()
