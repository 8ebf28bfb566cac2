"""Ready-made policies that most projects need.

    ownership("notes.Note")                                  # owners do what they like
    public_read("notes.Note", "is_public")                   # anyone reads public rows
    tenant("notes.Note", "tenant", "$claims.tenant")         # rows of the subject's tenant
    membership("notes.Note", "team", "teams.Membership")     # rows of the user's teams

Each returns a few ordinary policies, which are put in force by `declare()` in a policies.py or by
`create()` in code, a shell or a migration. Owns the names and predicates of those policies and the
check that the columns in them exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth import get_permission_codename, get_user_model
from django.db import models
from django.db.models import Q

from auth_rls.policy.definition import ACTIONS, AUDIENCES, MODES, Definition, user_column
from auth_rls.policy.policy_set import PolicySet, ShapeError
from auth_rls.policy.qobjects import to_json
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.parse import PredicateError, TableSchema, parse
from auth_rls.predicates.predicate import refs
from auth_rls.sql.columns import Column, columns_of, concrete, model_named, schema_of

AnyModel = type[models.Model] | str


def ownership(
    model: AnyModel,
    field: str = "owner",
    *,
    actions: Sequence[str] = ACTIONS,
    audience: str = "permission",
    name: str | None = None,
) -> PolicySet:
    """The user in `field` may do `actions` to the row, and cannot give the row to another user.

    `field` is a foreign key to the user, or a column with the user's primary key. In all functions
    here `audience` is that of `Policy`, and `name` is the prefix of the policies' names. Raises
    ShapeError for arguments that do not fit the models.
    """
    model = _model(model)
    predicate = {_is(field): _user_reference(model, field)}
    return _shape(
        model, predicate, actions, audience, name or f"{_label(model)}: own rows by {field}"
    )


def public_read(
    model: AnyModel,
    field: str = "is_public",
    *,
    audience: str = "anyone",
    name: str | None = None,
) -> PolicySet:
    """Rows whose boolean column `field` is true may be viewed."""
    model = _model(model)
    kind = _column(model, field).kind
    if kind is not Kind.BOOL:
        raise ShapeError(f"{field} of {_label(model)} is {kind}; public_read takes a boolean.")
    return _shape(
        model,
        {_is(field): True},
        ["view"],
        audience,
        name or f"{_label(model)}: public rows by {field}",
    )


def tenant(
    model: AnyModel,
    field: str,
    claim_or_user_field: str,
    *,
    actions: Sequence[str] = ACTIONS,
    audience: str | None = None,
    mode: str = "permissive",
    name: str | None = None,
) -> PolicySet:
    """Rows whose `field` is the subject's tenant: "$claims.<path>" or "$user.<field>".

    With mode "restrictive" tenants are separated whatever other policies grant. `audience` is then
    "anyone" by default; with mode "permissive" it is "permission".
    """
    model = _model(model)
    if not claim_or_user_field.startswith(("$claims.", "$user.")):
        raise ShapeError(
            f"{claim_or_user_field!r} names no tenant of the subject; write "
            f"'$claims.{claim_or_user_field.lstrip('$')}' for a claim of the token or "
            f"'$user.{claim_or_user_field.lstrip('$')}' for a field of the user."
        )
    _column(model, field)
    audience = audience or ("anyone" if mode == "restrictive" else "permission")
    return _shape(
        model,
        {_is(field): claim_or_user_field},
        actions,
        audience,
        name or f"{_label(model)}: rows of the tenant by {field}",
        mode,
    )


def membership(
    model: AnyModel,
    field: str,
    through: AnyModel,
    *,
    user_field: str | None = None,
    group_field: str | None = None,
    where: Q | None = None,
    actions: Sequence[str] = ("view",),
    audience: str = "permission",
    name: str | None = None,
) -> PolicySet:
    """Rows whose `field` names a group of which the user is a member by the rows of `through`.

    `field` is a foreign key to the group, or the primary key where the rows are the groups.
    `user_field` and `group_field` are columns of `through`; left out, they are its only foreign
    keys to the user and to the group. `where` narrows the rows of `through`: Q(role="lead").
    """
    model, through = _model(model), _model(through)
    group_field = group_field or _group_field(model, field, through)
    user_field = user_field or _only_link(through, get_user_model(), "user_field")
    member: Any = {_is(user_field): _user_reference(through, user_field)}
    if where is not None:
        try:
            member = {"all": [member, to_json(where)]}
        except ValueError as error:
            raise ShapeError(f"where: {error}") from None
    predicate = {f"{field}__in": {"select": group_field, "from": _label(through), "where": member}}
    return _shape(
        model,
        predicate,
        actions,
        audience,
        name or f"{_label(model)}: rows of groups one is in by {field}",
        others=(through,),
    )


def _shape(
    model: type[models.Model],
    predicate: dict[str, Any],
    actions: Sequence[str],
    audience: str,
    name: str,
    mode: str = "permissive",
    others: Sequence[type[models.Model]] = (),
) -> PolicySet:
    if isinstance(actions, str) or not actions or any(a not in ACTIONS for a in actions):
        raise ShapeError(f"actions is a list of some of {', '.join(ACTIONS)}, not {actions!r}.")
    for word, value, choices in (("audience", audience, AUDIENCES), ("mode", mode, MODES)):
        if value not in choices:
            raise ShapeError(f"{word} is one of {', '.join(choices)}, not {value!r}.")
    _check(model, predicate, others)
    options = model._meta
    definitions = []
    for action in dict.fromkeys(actions):
        permission = f"{options.app_label}.{get_permission_codename(action, options)}"
        using, check = (None, predicate) if action == "add" else (predicate, None)
        definitions.append(
            Definition(f"{name} ({action})", permission, audience, mode, using, check)
        )
    return PolicySet(model, tuple(definitions))


def _check(
    model: type[models.Model], predicate: dict[str, Any], others: Sequence[type[models.Model]]
) -> None:
    """Check the predicate with the given models, which in a migration are historical."""
    known = {_label(each): each for each in (model, *others)}

    def resolve(label: str) -> TableSchema:
        return schema_of(known.get(label) or model_named(label))

    try:
        for ref in refs(parse(predicate, schema_of(model), resolve)):
            if ref.source == "user":
                user_column(ref.path[0])
    except PredicateError as error:
        raise ShapeError(error.message) from None


def _is(column: str) -> str:
    """The predicate's key for "this column equals", also of a column named like a connective."""
    return f"{column}__exact" if column in ("all", "any", "not") else column


def _model(model: AnyModel) -> type[models.Model]:
    if isinstance(model, str):
        try:
            return model_named(model)
        except LookupError as error:
            raise ShapeError(str(error.args[0])) from None
    if not (isinstance(model, type) and issubclass(model, models.Model)):
        raise ShapeError(f'expected a model or "app.Model", not {model!r}')
    if model._meta.proxy:
        raise ShapeError(
            f"{_label(model)} is a proxy without rows of its own; give {_label(concrete(model))}."
        )
    return model


def _label(model: type[models.Model]) -> str:
    return model._meta.label


def _column(model: type[models.Model], name: str) -> Column:
    found = schema_of(model).columns.get(name)
    if found is None:
        _check(model, {name: "$role"}, ())  # The message lists the columns of the model.
        raise ShapeError(f"{name!r} is no column of {_label(model)}.")
    return columns_of(model)[found[0]]


def _user_reference(model: type[models.Model], name: str) -> str:
    """The reference with which the column `name`, which names a user, is compared."""
    field: Any = _column(model, name).field
    user = get_user_model()
    if field.remote_field is not None:
        if not _points_to(field, user):
            raise ShapeError(
                f"{name} of {_label(model)} points to {_label(field.related_model)}, "
                f"not to the user ({_label(user)})."
            )
        target = field.target_field
        return "$user.id" if target.primary_key else f"$user.{target.name}"
    kind, wanted = _column(model, name).kind, columns_of(user)[user_column("pk")].kind
    if kind not in (wanted, Kind.TEXT):
        raise ShapeError(
            f"{name} of {_label(model)} is {kind}, which cannot hold the user's key, a {wanted}."
        )
    return "$user.id"


def _group_field(model: type[models.Model], name: str, through: type[models.Model]) -> str:
    """The column of `through` with the group that the column `name` of `model` names."""
    field: Any = _column(model, name).field
    group = model if field.primary_key and field.remote_field is None else field.related_model
    if group is None:
        raise ShapeError(
            f"{name} of {_label(model)} is no foreign key; say with group_field which column of "
            f"{_label(through)} it is compared with."
        )
    found = _only_link(through, group, "group_field")
    target = field if field.remote_field is None else field.target_field
    if through._meta.get_field(found).target_field.name != target.name:  # type: ignore[union-attr]
        raise ShapeError(
            f"{name} of {_label(model)} and {found} of {_label(through)} name {_label(group)} by "
            "different columns; say with group_field which to compare with."
        )
    return found


def _only_link(through: type[models.Model], to: type[models.Model], argument: str) -> str:
    """The one foreign key of `through` to the model `to`."""
    links = [
        field.name
        for field in through._meta.local_concrete_fields
        if field.remote_field is not None and _points_to(field, to)
    ]
    if len(links) != 1:
        there_are = f"{len(links)}: {', '.join(links)}" if links else "none"
        raise ShapeError(
            f"{_label(through)} should have one foreign key to {_label(to)} and has {there_are}; "
            f"name the column with {argument}."
        )
    return links[0]


def _points_to(field: Any, model: type[models.Model]) -> bool:
    # By label: in a migration the models are not the classes of the registry.
    return bool(concrete(field.related_model)._meta.label_lower == model._meta.label_lower)
