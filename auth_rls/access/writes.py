"""Writes: whether a subject may add a row, or change one, before the instance is saved.

Saves nothing. A refusal names the permission and never a value, because the row may be one that
the subject cannot see.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.db import connections, models, router

from auth_rls.access.authority import new_row_predicate
from auth_rls.access.querysets import permitted
from auth_rls.access.snapshot import PolicySnapshot, permission_name
from auth_rls.predicates.evaluate import matcher
from auth_rls.sql.columns import columns_of, concrete
from auth_rls.sql.rows import row_of
from auth_rls.subjects.resolve import subject_of
from auth_rls.subjects.subject import Subject


class PolicyDenied(PermissionDenied):
    """No policy allows it. `permission` is "app.codename"."""

    def __init__(self, message: str, permission: str) -> None:
        super().__init__(message)
        self.permission = permission


def check_add(instance: models.Model, subject: Any) -> None:
    """Raise PolicyDenied unless `subject` may add `instance` as it is.

    `subject` is a `Subject`, a Django user or a request. Judged by the values the instance holds:
    what only the database knows (an expression, a generated column) fits no condition. An
    instance under a key that a row has already is refused, because saving it would change that row.
    """
    asking = subject_of(subject)
    model = concrete(type(instance))
    if (
        asking is None
        or _overwrites(instance)
        or matcher(new_row_predicate(asking, model, "add"))(row_of(instance)) is not True
    ):
        raise denied(model, "add", "No policy lets you add this {}")


def check_change(instance: models.Model, subject: Any) -> None:
    """Raise PolicyDenied unless `subject` may change the row to what `instance` holds.

    The row as it stands in the database is judged by `using`, the values of the instance by
    `with_check`; fields it has not loaded keep their stored values. Inside a transaction the row
    is locked where the database can, so that it still is what was judged when it is saved.
    """
    asking = subject_of(subject)
    model = concrete(type(instance))
    snapshot = PolicySnapshot.load()
    stored = None if asking is None else _changeable(instance, model, asking, snapshot)
    if asking is None or stored is None:
        raise denied(model, "change", "No policy lets you change this {}")
    predicate = new_row_predicate(asking, model, "change", snapshot=snapshot)
    if matcher(predicate)(_new_row(instance, stored)) is not True:
        raise denied(model, "change", "No policy lets you change the {} to that")


def denied(model: type[models.Model], action: str, words: str) -> PolicyDenied:
    """The refusal of an action on a row of `model`. `words` holds a {} for the model's name."""
    permission = permission_name(model, action)
    return PolicyDenied(f"{words.format(model._meta.verbose_name)} ({permission}).", permission)


def check_saved(instance: models.Model, subject: Any, action: str) -> None:
    """`check_add` or the second half of `check_change`, by the row as it has been stored: for
    what cannot be judged before. Call it in the transaction that wrote the row, and let
    PolicyDenied end that."""
    asking = subject_of(subject)
    model = concrete(type(instance))
    stored = _rows(instance, model).first()
    judge = None if asking is None else matcher(new_row_predicate(asking, model, action))
    if judge is None or stored is None or judge(row_of(stored)) is not True:
        raise denied(model, action, f"No policy lets you {action} this {{}}")


async def acheck_add(instance: models.Model, subject: Any) -> None:
    """`check_add` for async callers: the queries run in a database thread."""
    await sync_to_async(check_add, thread_sensitive=True)(instance, subject)


async def acheck_change(instance: models.Model, subject: Any) -> None:
    """`check_change` for async callers: the queries run in a database thread."""
    await sync_to_async(check_change, thread_sensitive=True)(instance, subject)


def _rows(instance: models.Model, model: type[models.Model]) -> models.QuerySet[Any]:
    # No manager: one that hides rows would make this door differ from the others.
    alias = router.db_for_write(model, instance=instance)
    return models.QuerySet(model, using=alias).filter(pk=instance.pk)


def _overwrites(instance: Any) -> bool:
    """Whether saving the instance as a new one would change a row instead."""
    model = concrete(type(instance))
    keys: list[Any] = list(model._meta.pk_fields)
    # Django inserts, and never updates, a new instance whose key has a default.
    defaulted = all(key.has_default() or key.has_db_default() for key in keys)
    if not instance._is_pk_set() or (instance._state.adding and defaulted):
        return False
    return _rows(instance, model).exists()


def _changeable(
    instance: Any,
    model: type[models.Model],
    subject: Subject,
    snapshot: PolicySnapshot,
) -> models.Model | None:
    """The stored row, if the subject may change it."""
    if not instance._is_pk_set():
        return None
    rows = permitted(_rows(instance, model), subject, "change", snapshot=snapshot)
    if connections[rows.db].in_atomic_block:
        rows = rows.select_for_update()
    return rows.first()


def _new_row(instance: models.Model, stored: models.Model) -> dict[str, object]:
    row = row_of(instance)
    kept = instance.get_deferred_fields()
    if kept:
        before = row_of(stored)
        for name, column in columns_of(type(instance)).items():
            if column.attname in kept and name in before:
                row[name] = before[name]
    return row
