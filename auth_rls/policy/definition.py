"""One policy as written, and the rule that it stands for.

Owns the way from both sources, rows of `Policy` and `policies.py`, to a parsed rule on a model, and
every reason to refuse a policy. It reads the app registry and never the database:
`sql.stored_types.look`, called before, says which types columns have there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.apps import apps
from django.contrib.auth import get_permission_codename, get_user_model
from django.core.exceptions import FieldDoesNotExist
from django.db import models

from auth_rls.policy import reach
from auth_rls.policy.rules import PolicyRule
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.parse import PredicateError, TableSchema, parse
from auth_rls.predicates.predicate import FALSE, Predicate, columns, refs, selects
from auth_rls.sql.columns import UnsupportedColumn, columns_of, concrete, model_named
from auth_rls.sql.stored_types import fit_of, schema_of

ACTIONS: Final = ("view", "add", "change", "delete")
AUDIENCES: Final = ("permission", "authenticated", "anyone")
MODES: Final = ("permissive", "restrictive")

# The attribute by which a model names other actions: see `actions_of`.
_OWN_ACTIONS: Final = "row_actions"

# A policy on the user model's password would put every change of a password into the log.
_NO_PASSWORD: Final = "{}: a password is not compared in policies"

# A predicate on the new row belongs to these only, as in PostgreSQL.
CHECKED_ACTIONS: Final = ("add", "change")


class PolicyProblem(ValueError):
    """A policy that cannot be used. `field` is the field at fault; the text says what would be
    right; `detail` is the database's own message, for operators only."""

    def __init__(self, field: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Definition:
    """A policy as written. `permission` is "app.codename"; `using` and `with_check` are JSON,
    with None for "not given"; `source` names the module or the database, for messages."""

    name: str
    permission: str
    audience: str = "permission"
    mode: str = "permissive"
    using: Any = None
    with_check: Any = None
    source: str = "database"
    # The model's name by the permission's content type, where known: the codename may differ.
    content_type: str | None = None
    # Declared in code, by developers: it may reach every model. See reach.py.
    in_code: bool = False


@dataclass(frozen=True, slots=True)
class Understood:
    """A parsed policy: `rule` decides `action` on rows of `model`."""

    model: type[models.Model]
    action: str
    rule: PolicyRule


def understand(definition: Definition) -> Understood:
    """The parsed policy. Raises PolicyProblem when it cannot be used."""
    model, action = target(definition)
    _choice("audience", definition.audience, AUDIENCES)
    _choice("mode", definition.mode, MODES)
    using, with_check = definition.using, definition.with_check
    if with_check is not None and action not in CHECKED_ACTIONS:
        raise PolicyProblem(
            "with_check",
            f"A {action} policy looks at no new row; leave this empty and use “using”.",
        )
    if using is None and (action != "add" or with_check is None):
        raise PolicyProblem(
            "using", "Say which rows; write true for every row the audience may ask for."
        )
    everywhere = definition.in_code
    if not (everywhere or action not in ACTIONS or reach.is_open(model)):
        raise PolicyProblem("permission", f"{reach.why_closed(model)}.")
    parsed_check = None
    if with_check is not None:
        parsed_check = _parsed("with_check", with_check, model, everywhere)
    # An add has no stored row: `using` is only read in place of `with_check`.
    parsed_using = FALSE if using is None else _parsed("using", using, model, everywhere)
    rule = PolicyRule(
        name=definition.name,
        audience=definition.audience,
        mode=definition.mode,
        using=parsed_using,
        with_check=parsed_check,
    )
    return Understood(model, action, rule)


def denying(definition: Definition) -> Understood:
    """The replacement of a policy that cannot be used: the same audience and mode, and no row. A
    permissive one grants nothing, a restrictive one denies all. Raises PolicyProblem if even the
    model is not known."""
    model, action = target(definition)
    audience = definition.audience if definition.audience in AUDIENCES else "anyone"
    mode = definition.mode if definition.mode in MODES else "restrictive"
    rule = PolicyRule(
        name=definition.name, audience=audience, mode=mode, using=FALSE, with_check=FALSE
    )
    return Understood(model, action, rule)


def in_force(definition: Definition) -> tuple[Understood | None, PolicyProblem | None]:
    """The policy as it is applied, and why it cannot be used, if it cannot. Then its denial is
    applied; none where even the model is not known."""
    try:
        return understand(definition), None
    except PolicyProblem as problem:
        try:
            return denying(definition), problem
        except PolicyProblem:
            return None, problem  # There is nothing to deny.


def target(definition: Definition) -> tuple[type[models.Model], str]:
    """The model whose rows the permission is about, and the action. Raises PolicyProblem."""
    app_label, _, codename = definition.permission.partition(".")
    own = _with_own_action(app_label, codename)
    if own is not None and definition.content_type in (None, own._meta.model_name):
        return own, codename
    action, _, model_name = codename.partition("_")
    if action not in ACTIONS or not model_name:
        raise PolicyProblem(
            "permission",
            f"{definition.permission} is no permission on rows; choose one named view_, add_, "
            "change_ or delete_<model>.",
        )
    if definition.content_type is not None:
        model_name = definition.content_type
    try:
        model = apps.get_model(app_label, model_name)
    except LookupError:
        raise PolicyProblem(
            "permission",
            f"{definition.permission} belongs to no model that is installed "
            f"({app_label}.{model_name}).",
        ) from None
    if action not in actions_of(model):
        raise PolicyProblem(
            "permission",
            f"{definition.permission} is no permission on {model._meta.label}; choose one of "
            f"{', '.join(f'{app_label}.{name}' for name in actions_of(model))}.",
        )
    wanted = codename_of(model, action)
    if codename != wanted:
        raise PolicyProblem(
            "permission",
            f"{definition.permission} is no permission on rows of {model._meta.label}; "
            f"did you mean {app_label}.{wanted}?",
        )
    if model._meta.proxy:
        owner = concrete(model)._meta
        raise PolicyProblem(
            "permission",
            f"{model._meta.label} is a proxy without rows of its own; choose "
            f"{owner.app_label}.{get_permission_codename(action, owner)}.",
        )
    return model, action


def actions_of(model: type[models.Model]) -> tuple[str, ...]:
    """The actions on rows of `model` that policies may decide: view, add, change and delete, or
    those that the model names in `row_actions`, each the codename of a permission."""
    own: tuple[str, ...] = getattr(model, _OWN_ACTIONS, ACTIONS)
    return own


def own_actions() -> list[str]:
    """Every codename that a model names in `row_actions`."""
    named = [model for model in apps.get_models() if hasattr(model, _OWN_ACTIONS)]
    return [action for model in named for action in actions_of(model)]


def codename_of(model: type[models.Model], action: str) -> str:
    """The codename of the permission for `action` on rows of `model`."""
    own = hasattr(model, _OWN_ACTIONS)
    return action if own else get_permission_codename(action, model._meta)


def _with_own_action(app_label: str, codename: str) -> type[models.Model] | None:
    """The model of the app that names `codename` among its own actions."""
    for model in apps.get_models():
        if model._meta.app_label == app_label and codename in getattr(model, _OWN_ACTIONS, ()):
            return model
    return None


def tables(predicate: Predicate) -> dict[type[models.Model], frozenset[str]]:
    """The other tables a predicate reads, with the columns it reads there."""
    found: dict[type[models.Model], frozenset[str]] = {}
    for select in selects(predicate):
        model = model_named(select.model)
        read = columns(select.where) | {select.column}
        found[model] = found.get(model, frozenset()) | read
    return found


def _choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise PolicyProblem(field, f"{value!r} is none of {', '.join(choices)}.")


def _parsed(field: str, written: Any, model: type[models.Model], everywhere: bool) -> Predicate:
    """The predicate written in `field`; `everywhere`: its selects may read every model."""

    def schema_named(label: str) -> TableSchema:
        named = model_named(label)
        if not (everywhere or reach.is_open(named)):
            raise LookupError(reach.why_closed(named))
        return schema_of(named)

    try:
        predicate = parse(written, schema_of(model), schema_named, user_kind)
        for ref in refs(predicate):
            if ref.source == "user":
                user_column(ref.path[0])
        user = get_user_model()
        read = tables(predicate).get(user, frozenset())
        if "password" in read | (columns(predicate) if concrete(model) is user else frozenset()):
            raise PredicateError(_NO_PASSWORD.format(f"{user._meta.label}.password"))
    except (PredicateError, UnsupportedColumn) as error:
        raise PolicyProblem(field, str(error)) from error
    return predicate


def user_kind(name: str) -> Kind:
    """The kind of the value of `$user.<name>`. Raises PredicateError."""
    return columns_of(get_user_model())[user_column(name)].kind


def user_column(name: str) -> str:
    """The column of the user table that `$user.<name>` reads. Raises PredicateError."""
    user = get_user_model()
    if name in ("id", "pk"):
        return str(user._meta.pk.column)
    try:
        field = user._meta.get_field(name)
    except FieldDoesNotExist:
        field = None
    column = getattr(field, "column", None)
    if column is None or column not in columns_of(user):
        known = ", ".join(sorted(c.name for c in columns_of(user).values() if c.name != "password"))
        raise PredicateError(f"$user.{name}: {user._meta.label} has no such field; it has {known}")
    if name == "password":
        raise PredicateError(_NO_PASSWORD.format("$user.password"))
    problem = fit_of(user, str(column)).problem
    if problem:
        raise PredicateError(f"$user.{name}: {problem}")
    return str(column)
