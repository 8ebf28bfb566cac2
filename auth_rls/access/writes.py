"""Writes: whether a subject may add a row, or change one, before the instance is saved.

Saves nothing. A refusal names the permission and never a value, because the row may be one that
the subject cannot see.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.db import connections, models

from auth_rls.access.authority import new_row_verdict, own_new_row_predicate
from auth_rls.access.querysets import permitted
from auth_rls.access.snapshot import PolicySnapshot, permission_name
from auth_rls.sql.columns import concrete
from auth_rls.sql.compile import condition
from auth_rls.sql.inheritance import ancestors, key_in
from auth_rls.sql.primary import primary
from auth_rls.subjects.resolve import subject_of
from auth_rls.subjects.subject import Subject


class PolicyDenied(PermissionDenied):
    """No policy allows it. `permission` is "app.codename"."""

    def __init__(self, message: str, permission: str) -> None:
        super().__init__(message)
        self.permission = permission


def check_add(instance: models.Model, subject: Any) -> None:
    """Raise PolicyDenied unless `subject` may add `instance`.

    `subject` is a `Subject`, a Django user or a request. The row that saving would store is judged:
    a value that is only known once it is stored (an expression, a generated column, the current
    time) fulfils no condition. An instance with the key of an existing row is refused, because
    saving it would change that row. In multi-table inheritance the rows of all parents are judged
    by the policies on the parents; a parent's row that exists counts as changed.
    """
    asking = subject_of(subject)
    write = None if asking is None else plan_add(instance, asking)
    if write is None or write.verdict is not True:
        raise denied(concrete(type(instance)), "add", "No policy lets you add this {}")


def check_change(instance: models.Model, subject: Any) -> None:
    """Raise PolicyDenied unless `subject` may change the row to what `instance` holds.

    The stored row is judged by `using`, the row that saving would store by `with_check`; fields
    that the instance has not loaded keep their stored values. In multi-table inheritance the rows
    of all parents are judged as well. Inside a transaction the row is locked if the database can do
    that, so that it does not change before it is saved.
    """
    asking = subject_of(subject)
    model = concrete(type(instance))
    write = None if asking is None else plan_change(instance, asking)
    if write is None:
        raise denied(model, "change", "No policy lets you change this {}")
    if write.verdict is not True:
        raise denied(model, "change", "No policy lets you change the {} to that")


@dataclass(frozen=True, slots=True)
class Write:
    """A write that is about to be made: the action on the instance's row in the table of its model
    and of each ancestor. `verdict` is the verdict on the new rows; None if they can only be judged
    after they are stored."""

    actions: Mapping[type[models.Model], str]
    verdict: bool | None


def plan_add(instance: models.Model, subject: Subject) -> Write | None:
    """The write of a new `instance`; None if saving it would change a row of its own model, or a
    parent's row that the subject may not change."""
    model = concrete(type(instance))
    if _overwrites(instance, model):
        return None
    snapshot = PolicySnapshot.load()
    actions = {model: "add"}
    for parent in ancestors(model):
        rows = _rows(instance, parent)
        exists = key_in(instance, parent) is not None and rows.exists()
        if exists and not permitted(rows, subject, "change", snapshot=snapshot).exists():
            return None
        actions[parent] = "change" if exists else "add"
    verdict = new_row_verdict(subject, instance, actions, snapshot=snapshot)
    return Write(actions, verdict)


def plan_change(instance: models.Model, subject: Subject) -> Write | None:
    """The write of a changed `instance`; None if there is no stored row that the subject may
    change."""
    model = concrete(type(instance))
    snapshot = PolicySnapshot.load()
    if not _changeable(instance, model, subject, snapshot):
        return None
    actions = dict.fromkeys((model, *ancestors(model)), "change")
    kept = instance.get_deferred_fields()
    whole = instance if not kept else _completed(instance, model, kept)
    return Write(actions, new_row_verdict(subject, whole, actions, snapshot=snapshot))


def denied(model: type[models.Model], action: str, words: str) -> PolicyDenied:
    """The refusal of an action on a row of `model`. `words` holds a {} for the model's name."""
    permission = permission_name(model, action)
    return PolicyDenied(f"{words.format(model._meta.verbose_name)} ({permission}).", permission)


def check_saved(
    instance: models.Model, subject: Any, actions: Mapping[type[models.Model], str]
) -> None:
    """Raise PolicyDenied unless the subject may have written the stored rows of the instance. For
    rows that cannot be judged before. `actions` are those of a `Write`. Call it in the transaction
    that wrote the rows, so that PolicyDenied rolls them back."""
    asking = subject_of(subject)
    snapshot = PolicySnapshot.load()
    for model, action in actions.items():
        rows = None if asking is None else _rows(instance, model)
        if rows is not None and asking is not None and not asking.bypasses_rls:
            predicate = own_new_row_predicate(asking, model, action, snapshot=snapshot)
            rows = rows.filter(condition(predicate, model))
        if rows is None or not rows.exists():
            raise denied(concrete(type(instance)), action, f"No policy lets you {action} this {{}}")


def is_stored(instance: models.Model) -> bool:
    """Whether the instance has a row of its model now."""
    return _rows(instance, concrete(type(instance))).exists()


async def acheck_add(instance: models.Model, subject: Any) -> None:
    """`check_add` for async callers: the queries run in a database thread."""
    await sync_to_async(check_add, thread_sensitive=True)(instance, subject)


async def acheck_change(instance: models.Model, subject: Any) -> None:
    """`check_change` for async callers: the queries run in a database thread."""
    await sync_to_async(check_change, thread_sensitive=True)(instance, subject)


def _rows(instance: models.Model, model: type[models.Model]) -> models.QuerySet[Any]:
    # No manager: with one that hides rows this door would differ from the others.
    return models.QuerySet(model, using=primary(model, instance)).filter(pk=key_in(instance, model))


def _overwrites(instance: Any, model: type[models.Model]) -> bool:
    """Whether saving the instance as a new one would change a row of its model instead."""
    keys: list[Any] = list(model._meta.pk_fields)
    # A new instance whose key has a default is always inserted by Django.
    defaulted = all(key.has_default() or key.has_db_default() for key in keys)
    if not instance._is_pk_set() or (instance._state.adding and defaulted):
        return False
    return _rows(instance, model).exists()


def _changeable(
    instance: Any,
    model: type[models.Model],
    subject: Subject,
    snapshot: PolicySnapshot,
) -> bool:
    """Whether there is a stored row that the subject may change. It is then locked."""
    if not instance._is_pk_set():
        return False
    rows = permitted(_rows(instance, model), subject, "change", snapshot=snapshot)
    if connections[rows.db].in_atomic_block:
        rows = rows.select_for_update()
    return rows.first() is not None


def _completed(instance: Any, model: type[models.Model], kept: Collection[str]) -> models.Model:
    """The instance with the fields that it has not loaded as they are stored."""
    whole = copy.copy(instance)
    stored = _rows(instance, model).get()
    for name in kept:
        setattr(whole, name, getattr(stored, name))
    return whole
