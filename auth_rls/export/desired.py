"""The desired state: every policy in force, as statements of PostgreSQL.

Owns the way from Django's models and settings to the arguments of `render`. It reads the policies
and changes nothing; `catalog` compares and installs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.apps import apps
from django.contrib.auth import get_permission_codename, get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import FieldDoesNotExist
from django.db import models, router

from auth_rls import conf
from auth_rls.export import subject_functions
from auth_rls.export.quoting import Function, identifier, shortened
from auth_rls.export.render import Inexpressible, ParentRows, Renderer, Table, bypass
from auth_rls.export.subject_functions import Holding, Users
from auth_rls.policy.definition import (
    ACTIONS,
    Definition,
    Understood,
    in_force,
)
from auth_rls.policy.rules import PolicyRule
from auth_rls.predicates.kinds import Kind
from auth_rls.sql.columns import columns_of, model_named
from auth_rls.sql.inheritance import descendants, parent_links
from auth_rls.sql.rows import converts
from auth_rls.subjects import tokens

PREFIX: Final = "rowcast: "
"""Begins the name of every policy that is ours."""
BYPASS: Final = "rowcast bypass"
# By label: this app imports no other, and an app that is not installed has no tables.
_OWN_APPS: Final = ("auth_rls", "realtime")
INHERITED: Final = "rowcast inherited "
"""Begins the names of the policies by which a child's rows depend on its parents' rows."""


@dataclass(frozen=True, slots=True)
class TableName:
    """A table: its schema and its name."""

    schema: str
    table: str

    @property
    def sql(self) -> str:
        return f"{identifier(self.schema)}.{identifier(self.table)}"

    def __str__(self) -> str:
        return self.table if self.schema == "public" else f"{self.schema}.{self.table}"


@dataclass(frozen=True, slots=True)
class PolicyStatement:
    table_name: TableName
    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Export:
    """The desired objects. `tables` have policies; `own` are the tables of Rowcast itself, which
    get row-level security and no policy. `notes` list what SQL cannot express and therefore
    denies."""

    functions: tuple[Function, ...]
    tables: tuple[TableName, ...]
    policies: tuple[PolicyStatement, ...]
    notes: tuple[str, ...]
    own: tuple[TableName, ...] = ()

    @property
    def secured(self) -> tuple[TableName, ...]:
        """Every table that has row-level security."""
        return tuple(dict.fromkeys((*self.tables, *self.own)))


Locate = Callable[[str], "TableName | None"]
"""Gives the name of a db_table's table; None where no table of that name can have policies."""


def by_name(db_table: str) -> TableName:
    """The table of this name, in the default schema. Makes no query."""
    schema, separator, table = db_table.strip('"').partition('"."')
    return TableName(schema, table) if separator else TableName("public", schema)


def wanted(definitions: Iterable[Definition], using: str, locate: Locate = by_name) -> Export:
    """The desired state for `definitions` in the database `using`. Raises Inexpressible, whose
    text says why, when the subject cannot be determined there."""
    notes: list[str] = []
    users = _users(locate, notes)
    renderer = Renderer(lambda label: _table(model_named(label), locate), users, _user_table(users))
    functions = {function.name: function for function in subject_functions.functions(users)}
    tables: dict[TableName, None] = {}
    policies: list[PolicyStatement] = []
    rules: dict[tuple[type[models.Model], str], list[PolicyRule]] = {}
    for definition in sorted(definitions, key=lambda definition: definition.name):
        understood = _understood(definition, notes)
        if understood is None or understood.action not in ACTIONS:
            continue
        model, rule = understood.model, understood.rule
        rules.setdefault((model, understood.action), []).append(rule)
        if not router.allow_migrate_model(using, model):
            continue
        table_name = locate(model._meta.db_table)
        if table_name is None:
            notes.append(f"policy {rule.name!r}: {model._meta.label} has no table; left out")
            continue
        table = Table(table_name.sql, columns_of(model))
        if table_name not in tables:
            tables[table_name] = None
            policies.append(PolicyStatement(table_name, BYPASS, bypass(table, BYPASS)))
        name = shortened(PREFIX + rule.name)
        permission = _permission(model, understood.action)
        sql = renderer.policy(table, name, understood.action, permission, rule)
        policies.append(PolicyStatement(table_name, name, sql))
    for model in _children({model for model, _ in rules}):
        table_name = locate(model._meta.db_table)
        if table_name is None or not router.allow_migrate_model(using, model):
            continue
        table = Table(table_name.sql, columns_of(model))
        if table_name not in tables:
            # Without a policy the table shows no row, as at every other door.
            tables[table_name] = None
            policies.append(PolicyStatement(table_name, BYPASS, bypass(table, BYPASS)))
        for action in ACTIONS:
            name = INHERITED + action
            parents = _parent_rows(model, action, rules, locate)
            sql = renderer.inherited(table, name, action, parents)
            policies.append(PolicyStatement(table_name, name, sql))
    functions.update(renderer.functions)
    return Export(
        # Functions without a digest in their names come first, because the others call them.
        functions=tuple(functions.values()),
        tables=tuple(tables),
        policies=tuple(policies),
        notes=tuple(dict.fromkeys([*notes, *renderer.notes])),
        own=_own_tables(using, locate),
    )


def _own_tables(using: str, locate: Locate) -> tuple[TableName, ...]:
    """The tables of the log, presence, messages and policies: they contain what policies hide."""
    models = [
        model
        for model in apps.get_models()
        if model._meta.app_label in _OWN_APPS
        and model._meta.managed
        and not model._meta.proxy
        and router.allow_migrate_model(using, model)
    ]
    found = (locate(model._meta.db_table) for model in models)
    return tuple(table_name for table_name in found if table_name is not None)


def _permission(model: type[models.Model], action: str) -> tuple[str, str]:
    return model._meta.app_label, get_permission_codename(action, model._meta)


def _children(decided: Collection[type[models.Model]]) -> list[type[models.Model]]:
    """The children in multi-table inheritance with policies, or with ancestors that have some."""
    found = {model for model in decided if parent_links(model)}
    found.update(child for model in decided for child in descendants(model))
    return sorted(found, key=lambda model: model._meta.label)


def _parent_rows(
    model: type[models.Model],
    action: str,
    rules: Mapping[tuple[type[models.Model], str], Sequence[PolicyRule]],
    locate: Locate,
) -> tuple[ParentRows, ...]:
    return tuple(
        ParentRows(
            column=str(link.field.column),
            table=_table(link.parent, locate),
            key=str(link.target.column),
            permission=_permission(link.parent, action),
            rules=tuple(rules.get((link.parent, action), ())),
            parents=_parent_rows(link.parent, action, rules, locate),
        )
        for link in parent_links(model)
    )


def _understood(definition: Definition, notes: list[str]) -> Understood | None:
    understood, problem = in_force(definition)
    if problem is not None:
        notes.append(
            f"policy {definition.name!r} cannot be used and denies: "
            f"{problem.field}: {problem.message}"
        )
    return understood


def _table(model: type[models.Model], locate: Locate) -> Table:
    table_name = locate(model._meta.db_table)
    if table_name is None:
        raise Inexpressible(f"{model._meta.label} has no table in this database")
    return Table(table_name.sql, columns_of(model))


def _located(model: type[models.Model], locate: Locate) -> str:
    return _table(model, locate).name


def _user_table(users: Users) -> Table:
    return Table(users.table, columns_of(get_user_model()))


def _users(locate: Locate, notes: list[str]) -> Users:
    model = get_user_model()
    settings = conf.current()
    _refuse_claims_beyond_sql(settings)
    key = columns_of(model).get(str(model._meta.pk.column))
    if key is None or key.kind not in subject_functions.KEY_TYPES:
        raise Inexpressible(
            f"The primary key of {model._meta.label} is neither an integer, a text nor a UUID, "
            "so SQL cannot determine the subject."
        )
    if converts(model._meta.pk):
        raise Inexpressible(
            f"The primary key of {model._meta.label} is converted by Python code, so SQL cannot "
            "determine the subject."
        )
    active = _flag(model, "is_active", notes)
    # A manager may hide users, and tokens of hidden users are refused. SQL cannot call a manager.
    if model._default_manager.get_queryset().query.where:
        notes.append(
            f"the default manager of {model._meta.label} hides users, which SQL cannot repeat; "
            "all its users count as hidden and see nothing"
        )
        active = False
    return Users(
        table=_located(model, locate),
        key=key.name,
        kind=Kind(key.kind),
        active=active,
        superuser=_flag(model, "is_superuser", notes),
        holding=_holding(model, locate, notes),
        user_id_claim=settings.user_id_claims[0],
        role_claim=settings.role_claim,
        default_role=settings.default_role,
        # SQL does not know which key signed the claims, so all may be another issuer's.
        mapped=settings.key_source is None or settings.maps_foreign_users,
        may_bypass=tokens.may_bypass(own=settings.key_source is None),
    )


def _refuse_claims_beyond_sql(settings: conf.AuthSettings) -> None:
    """Raise Inexpressible for settings of claims that have no form in SQL."""
    for key, unsuited in (
        ("USER_ID_CLAIM", len(settings.user_id_claims) > 1 or _dotted(settings.user_id_claims[0])),
        ("USER_FIELD", settings.user_field != "pk"),
        ("ROLE_CLAIM", _dotted(settings.role_claim)),
        ("ROLE_MAP", bool(settings.role_map)),
        ("REQUIRED_CLAIMS", bool(settings.required_claims)),
    ):
        if unsuited:
            raise Inexpressible(
                f'AUTH_RLS["{key}"] says how claims are read in a way that SQL has no words for.'
            )


def _dotted(claim: str) -> bool:
    return "." in claim and "/" not in claim


def _flag(model: type[models.Model], name: str, notes: list[str]) -> str | bool:
    """The boolean column of that name, or the value of a plain class attribute."""
    columns = {column.field.name: column for column in columns_of(model).values()}
    column = columns.get(name)
    if column is not None and column.kind is Kind.BOOL:
        return column.name
    value: Any = getattr(model, name, False)
    if isinstance(value, bool):
        return value
    notes.append(f"{model._meta.label}.{name} is no column of its table; it counts as false")
    return False


def _holding(model: type[models.Model], locate: Locate, notes: list[str]) -> Holding | None:
    try:
        own: Any = model._meta.get_field("user_permissions")
        groups: Any = model._meta.get_field("groups")
        if (own.related_model, groups.related_model) != (Permission, Group):
            raise FieldDoesNotExist
    except FieldDoesNotExist:
        notes.append(
            f"{model._meta.label} keeps permissions in its own way; in SQL nobody holds any"
        )
        return None
    of_group: Any = Group._meta.get_field("permissions")
    return Holding(
        permissions=_located(Permission, locate),
        permission_key=_key(Permission),
        permission_content_type=_column(Permission, "content_type"),
        content_types=_located(ContentType, locate),
        content_type_key=_key(ContentType),
        user_permissions=_located(own.remote_field.through, locate),
        user_permissions_user=own.m2m_column_name(),
        user_permissions_permission=own.m2m_reverse_name(),
        user_groups=_located(groups.remote_field.through, locate),
        user_groups_user=groups.m2m_column_name(),
        user_groups_group=groups.m2m_reverse_name(),
        group_permissions=_located(of_group.remote_field.through, locate),
        group_permissions_group=of_group.m2m_column_name(),
        group_permissions_permission=of_group.m2m_reverse_name(),
    )


def _key(model: type[models.Model]) -> str:
    return str(model._meta.pk.column)


def _column(model: type[models.Model], name: str) -> str:
    field: Any = model._meta.get_field(name)
    return str(field.column)
