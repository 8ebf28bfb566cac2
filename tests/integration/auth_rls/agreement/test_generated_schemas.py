"""Policies on tables that nobody has thought of: random columns, names and NULLs.

As in `test_walls_agree.py`, which has one table with every kind of column: the stream's verdict on
what the triggers captured, the queryset, the instance, and PostgreSQL's own row security agree.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection, models
from hypothesis import HealthCheck, Phase, given, note, seed, settings

from auth_rls import visible
from auth_rls.access.authority import row_predicate
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.models import Policy
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.kinds import Kind
from auth_rls.sql.columns import columns_of
from auth_rls.sql.rows import row_of
from realtime import publish
from realtime.event_log.event import RowImage
from realtime.models import WalEntry
from realtime.wal import triggers
from tests.support.captured_models import withdraw
from tests.support.policy_world import CELLS, SEED, Asker, asker_of_token, client, keys, predicates
from tests.support.row_security import CLIENT, remove_exported_policies

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

SCHEMAS = 5
ROWS = 25
POLICIES = 12
# Words of SQL and of the language, letters of other alphabets, spaces and capitals.
NAMES = ["Order", "select", "größe", "a b", "all", "not", "any", "user", "日", "UPPER", "x", "_y"]
_numbers = count(1)

Make = Callable[..., Any]
PLAIN: list[Make] = [
    models.BooleanField,
    models.SmallIntegerField,
    models.IntegerField,
    models.BigIntegerField,
    models.PositiveIntegerField,
    models.FloatField,
    models.TextField,
    models.UUIDField,
    models.DateField,
    models.TimeField,
    models.DateTimeField,
    models.DurationField,
    models.GenericIPAddressField,
    models.JSONField,
    models.BinaryField,
]
BOUNDS = {
    "SmallIntegerField": (-(2**15), 2**15),
    "IntegerField": (-(2**31), 2**31),
    "BigIntegerField": (-(2**63), 2**63),
    "PositiveIntegerField": (0, 2**31),
}


def field(rng: random.Random, column: str) -> Any:
    options: dict[str, Any] = {"db_column": column, "null": rng.random() < 0.7}
    options["db_index"] = rng.random() < 0.2
    kind = rng.randrange(len(PLAIN) + 3)
    if kind < len(PLAIN):
        if PLAIN[kind] in (models.JSONField, models.BinaryField):
            del options["db_index"]
        return PLAIN[kind](**options)
    if kind == len(PLAIN):
        places = rng.randrange(6)
        return models.DecimalField(max_digits=places + 6, decimal_places=places, **options)
    if kind == len(PLAIN) + 1:
        return models.CharField(max_length=rng.choice([1, 7, 200]), **options)
    return models.SlugField(max_length=50, **options)


def cell(rng: random.Random, field: Any, kind: Kind) -> Any:
    """A value that the column can hold."""
    choices = CELLS[kind]
    if kind is Kind.INT:
        low, high = BOUNDS[field.get_internal_type()]
        choices = [n for n in choices if low <= n < high]
    elif kind is Kind.DECIMAL:
        scale = Decimal(1).scaleb(-field.decimal_places)
        return rng.choice([-1, 0, 1, 7, 12_345]) * scale * rng.choice([1, 10])
    elif kind is Kind.TEXT and field.max_length is not None:
        choices = [text for text in choices if len(text) <= field.max_length]
    return rng.choice(choices)


def made(rng: random.Random) -> type[models.Model]:
    """A model of random columns, with its table, its triggers and its permission."""
    number = next(_numbers)
    names = rng.sample(NAMES, rng.randint(2, 7))
    body: dict[str, Any] = {f"f{n}": field(rng, name) for n, name in enumerate(names)}
    options = {"app_label": "zoo", "db_table": f"zoo_random_{number}"}
    body |= {"__module__": "tests.zoo.models", "Meta": type("Meta", (), options)}
    model: type[models.Model] = type(f"Random{number}", (models.Model,), body)
    with connection.schema_editor() as editor:
        editor.create_model(model)
    publish(model)
    triggers.reconcile()
    name = model._meta.model_name
    Permission.objects.create(
        codename=f"view_{name}",
        name=f"Can view {name}",
        content_type=ContentType.objects.get_for_model(model),
    )
    return model


def unmade(model: type[models.Model]) -> None:
    withdraw(model)
    with connection.schema_editor() as editor:
        editor.delete_model(model)
    apps.all_models["zoo"].pop(str(model._meta.model_name))
    apps.clear_cache()
    ContentType.objects.clear_cache()
    triggers.reconcile()


@pytest.fixture
def outsider() -> Iterator[None]:
    """On PostgreSQL a role that owns nothing, for as long as the test runs."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {CLIENT} NOLOGIN")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP OWNED BY {CLIENT}; DROP ROLE {CLIENT}")
        remove_exported_policies()


@pytest.mark.parametrize("number", range(SCHEMAS))
def test_every_wall_gives_the_same_answer_on_a_table_of_any_shape(
    number: int, outsider: None
) -> None:
    rng = random.Random(SEED + number)
    model = made(rng)
    try:
        columns = columns_of(model)
        for pk in range(1, ROWS + 1):
            cells = {
                column.attname: cell(rng, column.field, column.kind)
                for column in columns.values()
                if column.attname != "id" and not (column.field.null and rng.random() < 0.3)
            }
            model._default_manager.create(pk=pk, **cells)
        ada = User.objects.create_user("ada", "ada@example.com")
        askers = [asker_of_token(rng, ada.pk, "authenticated") for _ in range(3)]
        try_on(model, askers)
    finally:
        unmade(model)


def try_on(model: type[models.Model], askers: list[Asker]) -> None:
    label, table = model._meta.label, model._meta.db_table
    kinds = {name: column.kind for name, column in columns_of(model).items()}
    entries = WalEntry.objects.filter(table_name=table).order_by("id")
    images = {
        int(pk): RowImage(new.encode(), kinds) for pk, new in entries.values_list("pk_text", "new")
    }
    rows = model._default_manager.all()
    instances = {row.pk: row_of(row) for row in rows}
    assert images.keys() == instances.keys() == set(range(1, ROWS + 1))
    permission = Permission.objects.get(codename=f"view_{model._meta.model_name}")

    @seed(SEED)
    @settings(
        max_examples=POLICIES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(predicates(label, 4, 0))
    def walls(using: Any) -> None:
        note(f"ROWCAST_SEED={SEED}")
        Policy.objects.all().delete()
        policy = Policy(name="p", permission=permission, audience="anyone", using=using)
        policy.full_clean()
        policy.save()
        if connection.vendor == "postgresql":
            call_command("export_rls", apply=True, verbosity=0, stderr=io.StringIO())
            with connection.cursor() as cursor:
                cursor.execute(f'GRANT SELECT ON "{table}" TO {CLIENT}')
        snapshot = PolicySnapshot.load()
        for asker in askers:
            assert asker.subject is not None
            match = matcher(row_predicate(asker.subject, model, snapshot=snapshot))
            stream = {pk for pk, row in images.items() if match(row) is True}
            told = (using, asker.claims, columns_of(model))
            assert {pk for pk, row in instances.items() if match(row) is True} == stream, told
            assert keys(visible(rows, asker.subject, snapshot=snapshot)) == stream, told
            if connection.vendor == "postgresql":
                with client(asker) as run:
                    assert run(f'SELECT id FROM "{table}"') == stream, told

    walls()
    Policy.objects.all().delete()
