"""The tables that say who a user is and which permissions the user has.

Owns the list: the user table, the tables that give users groups and permissions, and the content
types, which say what model a permission is about. Reads no row of them.
"""

from __future__ import annotations

import inspect
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db.models import Manager, Model, QuerySet
from django.db.models.query_utils import DeferredAttribute

from auth_rls.access.snapshot import knows_permissions
from auth_rls.predicates.kinds import Kind, from_text
from auth_rls.sql.columns import Column, columns_of
from auth_rls.sql.rows import canonical, converts, loaded
from auth_rls.subjects.subject import Subject
from realtime.subscriptions.dependencies import Dependence, key_is
from realtime.wal import capture

# What is asked of a set of users.
_QUERIES = ("__init__", "_clone", "_fetch_all", "using", "filter", "in_bulk")
# Keys whose text is the same wherever they come from.
_PLAIN_KEYS = frozenset({Kind.INT, Kind.TEXT, Kind.UUID})


def table_of(label: str) -> str:
    """The table of the model that "app.Model" names, as the log has it."""
    return capture.table_name_of(apps.get_model(label))[1]


def identity_models() -> tuple[type[Model], ...]:
    """The models of these tables."""
    user = get_user_model()
    return (Permission, ContentType, Group.permissions.through, user, *_links(user))


def user_keys() -> dict[str, str | None]:
    """These tables, each with the column of the user's key; None where a row concerns more than one
    user."""
    user = get_user_model()
    found: dict[str, str | None] = {
        capture.table_name_of(Permission)[1]: None,
        capture.table_name_of(ContentType)[1]: None,
        capture.table_name_of(Group.permissions.through)[1]: None,
    }
    for model in (user, *_links(user)):
        column = columns_of(model).get(_user_key(user, model) or "")
        plain = column is not None and column.kind in _PLAIN_KEYS
        found[table_of(model._meta.label)] = column.name if plain and column else None
    return found


def users_are_followed() -> bool:
    """Whether the log tells every change of who a user is and what the user may do.

    It does for Django's own users and those derived from them. A user model that decides by code of
    its own, or by rows or columns that are not captured, may consult anything.
    """
    user = get_user_model()
    concrete = user._meta.concrete_model or user
    if concrete._meta.parents or not knows_permissions(user):
        return False
    columns = {field.name for field in user._meta.concrete_fields}
    for name in ("is_active", "is_superuser"):
        kept = inspect.getattr_static(user, name, False)
        if not isinstance(kept, DeferredAttribute if name in columns else bool):
            return False
    made = (user.__init__, getattr(user.from_db, "__func__", None))
    if made != (Model.__init__, Model.from_db.__func__):  # type: ignore[attr-defined]
        return False
    if user.__getattribute__ is not object.__getattribute__ or hasattr(user, "__getattr__"):
        return False
    manager = user._default_manager
    if type(manager).get_queryset is not Manager.get_queryset:
        return False
    # One that a manager was made from may hide users as well.
    queries = type(manager.get_queryset())
    if any(getattr(queries, name) is not getattr(QuerySet, name) for name in _QUERIES):
        return False
    related = {user._meta.get_field(name).related_model for name in ("groups", "user_permissions")}
    return related == {Group, Permission}


def about_user(subject: Subject, model: type[Model]) -> list[Dependence]:
    """The rows of a table that decides access on which a subject's verdicts depend, beside the rows
    that policies select."""
    user = get_user_model()
    _, table = capture.table_name_of(model)
    to_all = (Permission, ContentType, Group.permissions.through)
    if model in to_all or model._meta.label == "auth_rls.Policy":
        return [Dependence(table)]
    if model is not user and model not in _links(user):
        return []
    if subject.user_id is None:
        return []
    key = _user_key(user, model)
    column = columns_of(model).get(key or "")
    if column is None:
        return [Dependence(table)]
    if converts(column.field):
        return [_of_converted(table, column, subject.user_id)]
    try:
        value = from_text(column.kind, str(subject.user_id))
    except ValueError:
        # The `sub` of a token that cannot be the key of a user.
        return []
    return [key_is(table, column.name, value)]


def _of_converted(table: str, column: Column, user_id: object) -> Dependence:
    try:
        return key_is(table, column.name, canonical(column, user_id))
    except (ValidationError, ValueError, TypeError, ArithmeticError):
        return Dependence(table)  # Only the database knows which row it is.


def user_id_of(key: object) -> str | None:
    """The user id, as text, of the user whose key the log has as `key`; None where that cannot be
    told. They differ where the user model's key is converted on its way to the database."""
    field = get_user_model()._meta.pk
    if not converts(field):
        return str(key)
    try:
        return str(loaded(field, key))
    except Exception:
        return None  # It is the project's code, which may raise anything.


def _links(user: type[Model]) -> list[type[Model]]:
    """The tables that give a user groups and permissions, if the user model has such fields."""
    fields = (getattr(user, name, None) for name in ("groups", "user_permissions"))
    found = [getattr(field, "through", None) for field in fields]
    return [model for model in found if model is not None]


def _user_key(user: type[Model], model: type[Model]) -> str | None:
    """The column of the user table or of a link table with the user's key; None without one."""
    if model is user:
        return str(model._meta.pk.column)
    keys: list[Any] = [
        field for field in model._meta.concrete_fields if field.related_model is user
    ]
    if len(keys) > 1:
        # A table of the project's own names other users too: who gave the group, perhaps.
        keys = [key for key in keys if key.name in _members_of(user, model)]
    # One to another field of users does not hold the user's key.
    return str(keys[0].column) if len(keys) == 1 and keys[0].target_field.primary_key else None


def _members_of(user: type[Model], model: type[Model]) -> set[str]:
    """The names of the fields by which a link table names those who get groups or permissions."""
    links: list[Any] = [getattr(user, name, None) for name in ("groups", "user_permissions")]
    found = [link.rel for link in links if getattr(link, "through", None) is model]
    return {rel.through_fields[0] for rel in found if rel.through_fields}
