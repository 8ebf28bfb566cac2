"""Which rows a subject may have, as one predicate.

Owns the combination of policies, permissions and a subject, and the list of tables whose changes
can change the outcome. Every function here may query the database: call them in a database
thread, never on an event loop. Rules are combined by `policy.rules`; rows are matched by
`predicates.evaluate` or by SQL from `sql.compile`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import models

from auth_rls.access import audit_log
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.policy.definition import PolicyProblem, tables, understand, user_column
from auth_rls.policy.rules import PolicyRule, combine
from auth_rls.predicates.bind import MISSING, bind
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    All,
    Const,
    Predicate,
    Ref,
    Select,
    Test,
    columns,
    refs,
)
from auth_rls.predicates.simplify import simplify
from auth_rls.sets.reader import read_set
from auth_rls.sql.columns import Column, columns_of, concrete
from auth_rls.sql.inheritance import ParentLink, ancestors, descendants, parent_links
from auth_rls.sql.primary import primary
from auth_rls.sql.rows import canonical, converts, row_of
from auth_rls.subjects.subject import ANON, Subject
from auth_rls.subjects.user_lookup import field_value

Columns = frozenset[str]

# The stream delivers no row by these actions, so it does not follow their policies.
_UNSTREAMED = frozenset({"add", "change", "delete"})


def row_predicate(
    subject: Subject,
    model: type[models.Model],
    action: str = "view",
    *,
    snapshot: PolicySnapshot | None = None,
) -> Predicate:
    """The condition on a row of `model` under which `subject` may do `action`: bound, with the
    sets behind selects read, simplified.

    TRUE for a subject that bypasses row-level security, FALSE where no policy lets the subject
    in. For add and change this concerns the stored row; see `new_row_predicate`.
    """
    snapshot = snapshot or PolicySnapshot.load()
    return _predicate(subject, model, action, snapshot, reader(snapshot), new_row=False)


def new_row_predicate(
    subject: Subject,
    model: type[models.Model],
    action: str,
    *,
    snapshot: PolicySnapshot | None = None,
) -> Predicate:
    """As `row_predicate`, for the new row of an add or a change."""
    snapshot = snapshot or PolicySnapshot.load()
    return _predicate(subject, model, action, snapshot, reader(snapshot), new_row=True)


def bound_predicate(
    subject: Subject,
    model: type[models.Model],
    action: str,
    *,
    snapshot: PolicySnapshot | None = None,
    new_row: bool = False,
) -> Predicate:
    """As `row_predicate`, with selects left in place: SQL turns them into subqueries, the stream
    into live sets. With `new_row` as `new_row_predicate`, for one that has been stored."""
    if subject.bypasses_rls:
        audit_log.bypassed(subject, concrete(model), action)
        return TRUE
    return _predicate(subject, model, action, snapshot or PolicySnapshot.load(), None, new_row)


def own_new_row_predicate(
    subject: Subject,
    model: type[models.Model],
    action: str,
    *,
    snapshot: PolicySnapshot,
) -> Predicate:
    """The condition on a new row in the table of `model` alone, whatever its parents are, with
    selects left in place."""
    return _own_predicate(subject, model, action, snapshot, None, True)


def new_row_verdict(
    subject: Subject,
    instance: models.Model,
    actions: Mapping[type[models.Model], str],
    *,
    snapshot: PolicySnapshot | None = None,
) -> bool | None:
    """Whether `subject` may write the rows that saving `instance` would write: one into the table
    of each model in `actions`, whose action is add or change. None if that cannot be decided before
    they are stored, or if a condition is unknown."""
    snapshot = snapshot or PolicySnapshot.load()
    verdict: bool | None = True
    for model, action in actions.items():
        if subject.bypasses_rls:
            audit_log.bypassed(subject, model, action)
            continue
        predicate = _own_predicate(subject, model, action, snapshot, reader(snapshot), True)
        found = matcher(predicate)(row_of(instance, model))
        if found is False:
            return False
        verdict = found and verdict
    return verdict


def may_add(subject: Subject, instance: models.Model) -> bool:
    """Whether `subject` may add `instance`, judged by the values it holds."""
    models = (concrete(type(instance)), *ancestors(type(instance)))
    allowed = new_row_verdict(subject, instance, dict.fromkeys(models, "add")) is True
    if not allowed:
        audit_log.row_denied(subject, models[0], "add")
    return allowed


def may_do(
    subject: Subject,
    instance: models.Model,
    action: str,
    *,
    snapshot: PolicySnapshot | None = None,
) -> bool:
    """Whether `subject` may do one of the model's `row_actions` to `instance`, judged by the
    values it holds, since a model with such actions has no table."""
    predicate = row_predicate(subject, type(instance), action, snapshot=snapshot)
    return _lets_through(predicate, subject, instance, action)


def watched(*, snapshot: PolicySnapshot | None = None) -> dict[type[models.Model], Columns]:
    """Every table whose changes can change what the stream may deliver, with the columns that
    decide. They are captured even when they are not published; such captures are not delivered."""
    from auth_rls.models import Policy

    user = get_user_model()
    seen: dict[type[models.Model], Columns] = {
        Policy: _all_columns(Policy) - {"name"},
        Permission: _named(Permission, "content_type", "codename"),
        ContentType: _named(ContentType, "app_label", "model"),
        user: _named(user, "is_active", "is_superuser") | {user._meta.pk.column},
        Group.permissions.through: _all_columns(Group.permissions.through),
    }
    for field in ("groups", "user_permissions"):
        through = getattr(getattr(user, field, None), "through", None)
        if through is not None:
            seen[through] = _all_columns(through)
    for on, action, rule in snapshot or PolicySnapshot.load_if_migrated():
        if action in _UNSTREAMED:
            continue
        for read_model, read in _read_of(on, rule).items():
            seen[read_model] = seen.get(read_model, frozenset()) | read
        fields = {ref.path[0] for ref in refs(rule.using) if ref.source == "user"}
        seen[user] |= {user_column(name) for name in fields}
    return seen


def reads_on(before: Mapping[str, Any], after: Mapping[str, Any] | None) -> bool:
    """Whether a policy, after a change of its row (`after` is None if it was deleted), still reads
    every column of other tables that it read before. If so, no change of those columns went
    uncaptured. False in case of doubt."""
    try:
        read = _read_elsewhere(before)
        now = {} if after is None else _read_elsewhere(after)
    except (PolicyProblem, ObjectDoesNotExist, LookupError):
        return False
    return all(columns <= now.get(model, frozenset()) for model, columns in read.items())


def _read_elsewhere(row: Mapping[str, Any]) -> Mapping[type[models.Model], Columns]:
    """The other tables that are captured because of the policy in this row."""
    from auth_rls.models import Policy

    if not row["enabled"]:
        return {}
    names = ("permission_id", "audience", "mode", "using", "with_check")
    understood = understand(Policy(**{name: row[name] for name in names}).definition())
    return {} if understood.action in _UNSTREAMED else _read_of(understood.model, understood.rule)


def _read_of(model: type[models.Model], rule: PolicyRule) -> Mapping[type[models.Model], Columns]:
    """The tables that are captured because of a rule, beside the table that it is about, with their
    columns. In multi-table inheritance the rows of a child depend on those of its parent as if the
    rule selected from it."""
    found = dict(tables(rule.using))
    if descendants(model):
        own = columns(rule.using) | {str(model._meta.pk.column)}
        found[model] = found.get(model, frozenset()) | own
    return found


def columns_read(model: type[models.Model], *, snapshot: PolicySnapshot | None = None) -> Columns:
    """The columns of `model` that the policies on its streamed actions read."""
    snapshot = snapshot or PolicySnapshot.load_if_migrated()
    read: set[str] = set()
    for on, action, rule in snapshot:
        if on is model and action not in _UNSTREAMED:
            read |= columns(rule.using)
    return frozenset(read)


def renew(subject: Subject) -> Subject | None:
    """The subject with its user read again. None when the user is inactive, or has been deleted or
    hidden by its default manager since the subject was made."""
    return renew_all([subject])[0]


def renew_all(
    subjects: Iterable[Subject], *, snapshot: PolicySnapshot | None = None
) -> list[Subject | None]:
    """`renew` for many subjects, in their order, with one query for each 500 users; as of the
    snapshot's moment where that is an earlier one."""
    subjects = list(subjects)
    keys = [user_key(subject) for subject in subjects]
    wanted = list({key for key in keys if key is not None})
    found = users_with(wanted)
    if snapshot is not None and snapshot.past is not None:
        found = snapshot.past.users(found, wanted)
    return [renewed(subject, found.get(key)) for subject, key in zip(subjects, keys, strict=True)]


def users_with(keys: Sequence[Any]) -> dict[Any, Any]:
    """The users with these primary keys, by key; one query for each 500."""
    found: dict[Any, Any] = {}
    model = get_user_model()
    # The default manager: a user whom it hides is refused by the handshake, too.
    manager = model._default_manager.using(primary(model))
    for start in range(0, len(keys), 500):
        found.update(manager.in_bulk(keys[start : start + 500]))
    return found


def user_key(subject: Subject) -> Any:
    """The primary key of the subject's user; None if its user id cannot be one. Makes no query."""
    if subject.user is not None:
        return subject.user.pk
    if subject.role == ANON or subject.user_id is None:
        return None
    # A `sub` that named no user when its token came may name one by now.
    key = field_value(get_user_model()._meta.pk, str(subject.user_id))
    return key if str(key) == str(subject.user_id) else None


def renewed(subject: Subject, user: Any) -> Subject | None:
    """The subject with the user that its `user_key` has now, None for none. None as `renew` says.
    Makes no query."""
    if user is None:
        return subject if subject.user is None else None
    if not getattr(user, "is_active", False):
        return None
    if user is subject.user and user.pk == subject.user_id:
        return subject
    return dataclasses.replace(subject, user=user, user_id=user.pk)


def _predicate(
    subject: Subject,
    model: type[models.Model],
    action: str,
    snapshot: PolicySnapshot,
    set_of: Callable[[Select], Iterable[object]] | None,
    new_row: bool,
) -> Predicate:
    """The condition on a row of `model`. It is a row of each parent too, and the policies of all
    must let it through."""
    model = concrete(model)
    if subject.bypasses_rls:
        audit_log.bypassed(subject, model, action)
        return TRUE
    own = _own_predicate(subject, model, action, snapshot, set_of, new_row)
    links = parent_links(model)
    if not links:
        return own
    parts = [own]
    for link in links:
        if FALSE in parts:
            break
        of_parent = _predicate(subject, link.parent, action, snapshot, None, new_row)
        parts.append(_of_parent(link, of_parent, set_of))
    return simplify(All(tuple(parts)))


def _of_parent(
    link: ParentLink, predicate: Predicate, set_of: Callable[[Select], Iterable[object]] | None
) -> Predicate:
    """The condition on the child's row that its row of the parent fulfils `predicate`."""
    if isinstance(predicate, Const):
        return predicate
    column = columns_of(link.field.model).get(str(link.field.column))
    if column is None:
        return FALSE  # The key cannot be compared, and a doubt denies.
    label, key = link.parent._meta.label, str(link.target.column)
    select = Select(label, key, predicate, "", column.kind)
    return bind(Test(column.name, "in", select), lambda ref: MISSING, set_of)


def _own_predicate(
    subject: Subject,
    model: type[models.Model],
    action: str,
    snapshot: PolicySnapshot,
    set_of: Callable[[Select], Iterable[object]] | None,
    new_row: bool,
) -> Predicate:
    """The condition by the policies on the table of `model` alone."""
    rules = snapshot.rules(model, action)
    if not rules:
        audit_log.judged(subject, model, action, (), FALSE)
        return FALSE
    holds_permission = snapshot.holds(subject, model, action)
    authenticated = subject.role != ANON
    key = (model, action, holds_permission, authenticated, new_row)
    found = snapshot.conditions.get(key)
    if found is None:
        combined = combine(
            rules, holds_permission=holds_permission, authenticated=authenticated, new_row=new_row
        )
        personal = any(True for _ in refs(combined))
        if not personal:
            combined = bind(combined, lambda ref: MISSING)
        combined = simplify(combined)
        found = snapshot.conditions[key] = combined, personal
    predicate, personal = found
    if personal or set_of is not None:
        predicate = simplify(bind(predicate, values_of(subject), set_of))
    concerning = (
        rule
        for rule in rules
        if rule.concerns(holds_permission=holds_permission, authenticated=authenticated)
    )
    audit_log.judged(subject, model, action, concerning, predicate)
    return predicate


def _lets_through(
    predicate: Predicate, subject: Subject, instance: models.Model, action: str
) -> bool:
    allowed = matcher(predicate)(row_of(instance)) is True
    if not allowed and predicate != FALSE:
        audit_log.row_denied(subject, concrete(type(instance)), action)
    return allowed


def values_of(subject: Subject) -> Callable[[Ref], object]:
    """A function that returns the value of a reference for `subject`, for `bind`."""

    def value_of(ref: Ref) -> object:
        if ref.source == "role":
            return subject.role
        if ref.source == "user":
            return _user_value(subject, ref.path[0])
        found: Any = subject.claims
        for step in ref.path:
            if not isinstance(found, Mapping) or step not in found:
                return MISSING
            found = found[step]
        return found

    return value_of


def _user_value(subject: Subject, name: str) -> object:
    if subject.user is None:
        if name not in ("id", "pk") or subject.user_id is None:
            return MISSING
        # A `sub` that names no Django user counts as the user id.
        return _stored_key(subject.user_id)
    column = _column_of_user(get_user_model(), name)
    try:
        return canonical(column, getattr(subject.user, column.attname))
    except (ValidationError, ValueError, TypeError, ArithmeticError):
        return MISSING


def user_fields(snapshot: PolicySnapshot, without: Collection[str] = ()) -> tuple[str, ...]:
    """The fields of users that the policies of a snapshot name, apart from the key, and from those
    of the actions in `without`."""
    named = {
        ref.path[0]: None
        for _, action, rule in snapshot
        if action not in without
        for ref in refs(rule.using)
        if ref.source == "user" and ref.path[0] not in ("id", "pk")
    }
    return tuple(named)


def user_values(subject: Subject, fields: Iterable[str]) -> tuple[object, ...]:
    """What policies compare of these fields of the subject's user, as values to be compared: users
    for whom it is equal are treated alike. What cannot be read or compared equals nothing."""
    return tuple(_comparable(subject, name) for name in fields)


def _comparable(subject: Subject, name: str) -> object:
    try:
        found = _user_value(subject, name)
        hash(found)
    except Exception:
        # Of a field that holds JSON, or by code of the project, which may raise anything.
        return object()
    return found


@cache
def _column_of_user(model: type[models.Model], name: str) -> Column:
    return columns_of(model)[user_column(name)]


def _stored_key(user_id: object) -> object:
    """A user's primary key in the database's form, if the user model's field converts it."""
    key: Any = get_user_model()._meta.pk
    column = columns_of(get_user_model()).get(str(key.column))
    if column is None or not converts(key):
        return user_id
    try:
        return canonical(column, user_id)
    except (ValidationError, ValueError, TypeError, ArithmeticError):
        return user_id


def reader(snapshot: PolicySnapshot) -> Callable[[Select], Iterable[object]]:
    """A function that reads the set behind a select. Equal selects are read once for the
    snapshot."""

    def set_of(select: Select) -> frozenset[object]:
        known = snapshot.sets.get(select)
        if known is None:
            known = snapshot.sets[select] = read_set(select)
        return known

    return set_of


def _all_columns(model: type[models.Model]) -> Columns:
    return frozenset(field.column for field in model._meta.local_concrete_fields)


def _named(model: type[models.Model], *names: str) -> Columns:
    """The columns of those of the named fields that the model has."""
    fields = {field.name: field.column for field in model._meta.concrete_fields}
    return frozenset(fields[name] for name in names if name in fields)
