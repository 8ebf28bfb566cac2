"""Columns of another type than their field's, as `inspectdb` and other programs leave them.

For every such column of PostgreSQL all doors give one answer, or the column is refused in policies
and filters, by its name and type.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import NotSupportedError, models

from auth_rls import Subject, visible
from auth_rls.access.authority import row_predicate
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.explain.doors import Question, ask_all
from auth_rls.models import Policy
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.kinds import OPAQUE, Kind
from auth_rls.sql import stored_types
from auth_rls.sql.columns import columns_of
from realtime import publish
from realtime.event_log.event import RowImage
from realtime.models import WalEntry
from realtime.protocol.join import Binding
from realtime.subscriptions.planner import Planner
from realtime.wal import triggers
from tests.support.captured_models import withdraw
from tests.support.policy_world import Asker, client, keys
from tests.support.postgresql_tables import sql
from tests.support.row_security import CLIENT, remove_exported_policies
from tests.support.vendors import on_postgresql

pytestmark = [pytest.mark.django_db(transaction=True), on_postgresql]


class Case(NamedTuple):
    """A column as a table declares it, the field before it, and values as SQL."""

    type: str
    field: models.Field[Any, Any]
    values: tuple[str, ...]


def char() -> Any:
    return models.CharField(max_length=50, null=True)


def text() -> Any:
    return models.TextField(null=True)


def integer() -> Any:
    return models.IntegerField(null=True)


def decimal(places: int | None = 2) -> Any:
    return models.DecimalField(max_digits=places and 12, decimal_places=places, null=True)


def moment() -> Any:
    return models.DateTimeField(null=True)


WORDS = ("'secret'", "'Secret'", "'secret '", "'other'", "''")
MOODS = ("'sad'", "'Sad'", "'glad'")
MOMENTS = ("'2026-01-01 10:00:00.25'", "'2026-01-02'", "'infinity'")
PREPARE = """
CREATE EXTENSION IF NOT EXISTS citext;
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE TYPE zoo_mood AS ENUM ('sad', 'Sad', 'glad');
CREATE DOMAIN zoo_word AS text CHECK (length(value) < 20);
CREATE DOMAIN zoo_short AS zoo_word;
CREATE DOMAIN zoo_feeling AS zoo_mood;
CREATE DOMAIN zoo_mail AS citext;
CREATE DOMAIN zoo_code AS char(8);
CREATE DOMAIN zoo_count AS integer CHECK (value >= 0);
CREATE DOMAIN zoo_price AS numeric(12, 2);
CREATE TYPE zoo_pair AS (a int, b text);
"""
# Not every build of PostgreSQL has the collations that take different texts for equal.
PREPARE_ICU = """
CREATE COLLATION zoo_blurred (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
CREATE DOMAIN zoo_blur AS text COLLATE zoo_blurred;
"""
FORGET = """
DROP TABLE IF EXISTS zoo_odd CASCADE;
DROP DOMAIN IF EXISTS zoo_blur;
DROP DOMAIN zoo_price, zoo_count, zoo_code, zoo_mail, zoo_feeling, zoo_short, zoo_word;
DROP TYPE zoo_pair, zoo_mood;
DROP COLLATION IF EXISTS zoo_blurred;
"""

COMPARED = (
    Case("char(10)", char(), WORDS),
    Case("bpchar", char(), WORDS),
    Case("varchar(20)", text(), WORDS),
    Case("text", char(), WORDS),
    Case('text COLLATE "C"', char(), WORDS),
    Case("citext", char(), WORDS),
    Case("citext", text(), WORDS),
    Case("zoo_mail", models.EmailField(null=True), WORDS),
    Case("zoo_word", char(), WORDS),
    Case("zoo_short", text(), WORDS),
    Case("zoo_code", char(), WORDS),
    Case("zoo_mood", char(), MOODS),
    Case("zoo_feeling", text(), MOODS),
    Case(
        "text COLLATE zoo_blurred",
        models.CharField(max_length=20, db_collation="zoo_blurred", null=True),
        WORDS,
    ),
    Case("zoo_count", integer(), ("0", "7")),
    Case("smallint", models.BigIntegerField(null=True), ("0", "7", "-1")),
    Case("bigint", models.SmallIntegerField(null=True), ("0", "9223372036854775807")),
    Case("zoo_price", decimal(), ("1.00", "7.25", "-1")),
    Case("numeric", decimal(None), ("1.00", "7.255", "'NaN'")),
    Case("jsonb", models.JSONField(null=True), ("'{}'", "'null'")),
)

REFUSED = (
    Case("text COLLATE zoo_blurred", char(), WORDS),
    Case("zoo_blur", text(), WORDS),
    Case("name", char(), WORDS),
    Case('"char"', char(), ("'s'", "'S'")),
    Case("integer", char(), ("1", "7")),
    Case("boolean", char(), ("true", "false")),
    Case("uuid", char(), ("'6c84fb90-12c4-11e1-840d-7b25c5ee775a'",)),
    Case("money", char(), ("1.5", "7")),
    Case("money", decimal(), ("1.5", "7")),
    Case("bit(4)", char(), ("B'0101'", "B'1111'")),
    Case("varbit", char(), ("B'0101'", "B'1'")),
    Case("xml", text(), ("'<a/>'", "'b'")),
    Case("hstore", text(), ("'a=>1'", "''")),
    Case("int4range", char(), ("'[1,5)'", "'empty'")),
    Case("tstzrange", text(), ("'[2026-01-01,2026-01-02)'",)),
    Case("text[]", text(), ("'{a,b}'", "'{}'")),
    Case("integer[]", char(), ("'{1}'", "'{}'")),
    Case("zoo_mood[]", char(), ("'{sad}'",)),
    Case("zoo_pair", char(), ("ROW(1, 'a')",)),
    Case("oid", integer(), ("1", "4294967295")),
    Case("oid", models.BigIntegerField(null=True), ("1", "4294967295")),
    Case("regclass", char(), ("'pg_class'",)),
    Case("inet", char(), ("'10.0.0.1'",)),
    Case("cidr", models.GenericIPAddressField(null=True), ("'10.0.0.0/8'",)),
    Case("macaddr", char(), ("'08:00:2b:01:02:03'",)),
    Case("interval", char(), ("'1 day'", "'1 month'")),
    Case("interval(2)", models.DurationField(null=True), ("'1.234 s'",)),
    Case("interval year to month", models.DurationField(null=True), ("'1 year'",)),
    Case("timestamptz", char(), MOMENTS),
    Case("timestamp", moment(), MOMENTS),
    Case("timestamptz(0)", moment(), MOMENTS),
    Case("date", moment(), MOMENTS),
    Case("timestamptz", models.DateField(null=True), MOMENTS),
    Case("timetz", models.TimeField(null=True), ("'10:00+02'",)),
    Case("time(0)", models.TimeField(null=True), ("'10:00:00.7'",)),
    Case("numeric", integer(), ("1", "1.5")),
    Case("double precision", integer(), ("1", "1.5", "'NaN'")),
    Case("text", integer(), ("'1'", "'x'")),
    Case("boolean", integer(), ("true",)),
    Case("integer", models.BooleanField(null=True), ("0", "1", "2")),
    Case("char(1)", models.BooleanField(null=True), ("'t'", "'f'")),
    Case("real", models.FloatField(null=True), ("0.1", "1")),
    Case("numeric", models.FloatField(null=True), ("0.1", "1")),
    Case("double precision", decimal(), ("0.1", "1")),
    Case("integer", decimal(), ("1", "2")),
    Case("numeric(12, 4)", decimal(), ("1.0051", "7")),
    Case("numeric", decimal(), ("1.0051", "7")),
    Case("numeric(12, 2)", decimal(None), ("1.01",)),
    Case("text", models.UUIDField(null=True), ("'6c84fb90-12c4-11e1-840d-7b25c5ee775a'", "'x'")),
    Case("json", models.JSONField(null=True), ("'{}'", "'null'")),
    Case("text", models.JSONField(null=True), ("'{}'", "'x'")),
    Case("text", models.BinaryField(null=True), ("'a'",)),
    Case("bigint[]", models.BinaryField(null=True), ("'{1}'",)),
    Case("tsvector", text(), ("'a b'",)),
    Case("point", text(), ("'(1,2)'",)),
    Case("jsonpath", text(), ("'$.a'",)),
    Case("pg_lsn", char(), ("'0/10'",)),
)

LITERALS: dict[Kind, list[Any]] = {
    Kind.TEXT: ["secret", "SECRET", "secret ", "other", "", "sad", "1", "{a,b}"],
    Kind.INT: [0, 1, 7],
    Kind.FLOAT: [0.1, 1],
    Kind.DECIMAL: ["1.00", "1.01", 7.255],
    Kind.BOOL: [True, False],
    Kind.UUID: ["6c84fb90-12c4-11e1-840d-7b25c5ee775a"],
    Kind.DATE: ["2026-01-02"],
    Kind.TIME: ["10:00:00"],
    Kind.DATETIME: ["2026-01-02T00:00:00Z"],
    Kind.INTERVAL: ["P1D"],
    Kind.INET: ["10.0.0.1"],
}
ANYONE = Subject.anonymous()
ASKER = Asker("anyone", {"role": "anon"}, ANYONE)


def predicates_on(name: str, kind: Kind) -> Iterator[dict[str, Any]]:
    yield {f"{name}__isnull": True}
    if kind in OPAQUE:
        return
    literals = LITERALS[kind]
    for literal in literals[:4]:
        yield {name: literal}
        yield {"not": {name: literal}}
    yield {"not": {f"{name}__in": literals[:2]}}
    yield {f"{name}__in": literals}
    if kind not in (Kind.BOOL, Kind.INET):
        yield {f"{name}__gt": literals[0]}
        yield {"not": {f"{name}__range": [literals[0], literals[-1]]}}
    if kind is Kind.TEXT:
        for op, part in (("startswith", "se"), ("endswith", "t"), ("contains", "")):
            yield {"not": {f"{name}__{op}": part}}
        yield {f"{name}__iexact": "SECRET"}
        yield {f"{name}__icontains": "CRE"}


@pytest.fixture
def outsider() -> Iterator[None]:
    sql(f"CREATE ROLE {CLIENT} NOLOGIN")
    yield
    sql(f"DROP OWNED BY {CLIENT}")
    sql(f"DROP ROLE {CLIENT}")
    remove_exported_policies()


@pytest.fixture
def odd(request: pytest.FixtureRequest, outsider: None) -> Iterator[Any]:
    """A table with a column for each of the cases, and a row for each of their values."""
    with_icu = sql("SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu'")
    absent = "nothing" if with_icu else "zoo_blur", "nothing" if with_xml() else "xml"
    cases = tuple(c for c in request.param if not any(name in c.type for name in absent))
    body: dict[str, Any] = {f"c{n}": case.field.clone() for n, case in enumerate(cases)}
    options = {"app_label": "zoo", "db_table": "zoo_odd", "managed": False}
    body |= {"__module__": "tests.zoo.models", "Meta": type("Meta", (), options)}
    model: type[models.Model] = type("Odd", (models.Model,), body)
    sql(PREPARE + (PREPARE_ICU if with_icu else ""))
    try:
        columns = ", ".join(f"c{n} {case.type}" for n, case in enumerate(cases))
        sql(f"CREATE TABLE zoo_odd (id int PRIMARY KEY, {columns})")
        publish(model)
        model.cases = cases
        triggers.reconcile()
        for row in range(max(len(case.values) for case in cases)):
            values = ", ".join(case.values[row % len(case.values)] for case in cases)
            sql(f"INSERT INTO zoo_odd VALUES ({row}, {values})".replace("%", "%%"))
        sql("INSERT INTO zoo_odd VALUES (99)")
        Permission.objects.create(
            codename="view_odd",
            name="Can view odd",
            content_type=ContentType.objects.get_for_model(model),
        )
        yield model
    finally:
        Policy.objects.all().delete()
        withdraw(model)
        sql(FORGET)
        apps.all_models["zoo"].pop("odd")
        apps.clear_cache()
        ContentType.objects.clear_cache()
        stored_types.forget()
        triggers.reconcile()


def with_xml() -> bool:
    """Whether this build of PostgreSQL knows XML."""
    try:
        sql("SELECT '<a/>'::xml")
    except NotSupportedError:
        return False
    return True


def written(using: Any) -> Policy:
    permission = Permission.objects.get(codename="view_odd")
    return Policy(name="odd", permission=permission, audience="anyone", using=using)


def put(using: Any) -> None:
    """The one policy there is, as it comes from a fixture: unchecked."""
    if not Policy.objects.update(using=using):
        written(using).save_base(raw=True, force_insert=True)


def answers(model: type[models.Model], rows: list[Any]) -> dict[str, set[int]]:
    """By door, the keys of the rows it lets through."""
    found: dict[str, set[int]] = {}
    for row in rows:
        for verdict in ask_all(Question(ANYONE, None, "view", row)):
            if verdict.allowed is not None:
                assert not verdict.note, verdict
                seen = found.setdefault(verdict.door, set())
                if verdict.allowed:
                    seen.add(row.pk)
    return found


@pytest.mark.parametrize("odd", [COMPARED], indirect=True)
def test_every_door_compares_such_a_column_alike(odd: Any) -> None:
    rows = list(odd._default_manager.only("pk"))
    kinds = {name: column.kind for name, column in columns_of(odd).items()}
    entries = WalEntry.objects.filter(table_name="zoo_odd").values_list("pk_text", "new")
    images = {int(key): RowImage(new.encode(), kinds) for key, new in entries}
    assert images.keys() == {row.pk for row in rows}
    compared = set()
    for number, case in enumerate(odd.cases):
        name = f"c{number}"
        telling: Any = None
        for using in predicates_on(name, kinds[name]):
            policy = written(using)
            try:
                policy.full_clean(validate_unique=False)
            except ValidationError as error:
                # What ignores case has no order.
                assert "citext" in case.type or case.type == "zoo_mail", (case, using, error)
                continue
            snapshot = PolicySnapshot([policy.definition()])
            match = matcher(row_predicate(ANYONE, odd, snapshot=snapshot))
            stream = {key for key, image in images.items() if match(image) is True}
            queryset = visible(odd._default_manager.all(), ANYONE, snapshot=snapshot)
            assert keys(queryset) == stream, (case.type, using)
            compared.add((name, bool(stream)))
            if stream and len(stream) < len(rows):
                telling = using, stream
        # The other doors take longer, and share what they ask with these two.
        using, stream = telling
        put(using)
        shown = [row for row in rows if row.pk in stream][:1]
        found = answers(odd, shown + [row for row in rows if row.pk not in stream][:1])
        assert set(found) >= {"stream", "queryset", "REST"}
        assert found == {door: {row.pk for row in shown} for door in found}, (case.type, using)
        call_command("export_rls", apply=True, verbosity=0, stderr=io.StringIO())
        sql(f"GRANT SELECT ON zoo_odd TO {CLIENT}")
        with client(ASKER) as run:
            assert run("SELECT id FROM zoo_odd") == stream, (case.type, using)
    assert len(compared) > len(odd.cases)


@pytest.mark.parametrize("odd", [REFUSED], indirect=True)
def test_a_column_that_the_doors_would_read_differently_is_refused(
    odd: Any,
) -> None:
    rows = list(odd._default_manager.only("pk"))
    entries = WalEntry.objects.filter(table_name="zoo_odd").order_by("id")
    images = [json.loads(new) for new in entries.values_list("new", flat=True)]
    assert len(images) == len(rows)
    assert all(len(image) == len(odd.cases) + 1 for image in images)
    for number, case in enumerate(odd.cases):
        name = f"c{number}"
        kind = columns_of(odd)[name].kind
        literal = LITERALS.get(kind, [None])[0]
        using: Any = {"not": {name: literal}} if literal is not None else {f"{name}__isnull": True}
        policy = written(using)
        with pytest.raises(ValidationError) as refused:
            policy.full_clean(validate_unique=False)
        assert name in str(refused.value), case
        assert type_name(case.type, name) in str(refused.value), (case, refused.value)
        # As it stands in the database of somebody who changed the column afterwards.
        put(using)
        found = answers(odd, rows[:1])
        assert found == {door: set() for door in found}, case
        binding = Binding(id=1, schema="public", table="zoo_odd", filter=f"{name}=eq.{literal}")
        (problem,) = Planner().plan(Subject.service(), [binding]).problems
        assert problem is not None and name in problem, case
        assert type_name(case.type, name) in problem, case


def type_name(declared: str, column: str) -> str:
    """How messages name the type of a column: as PostgreSQL does."""
    if "COLLATE" in declared:
        return "collation"
    ((found,),) = sql(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'zoo_odd'::regclass AND attname = %s",
        column,
    )
    return str(found)


@pytest.mark.parametrize("odd", [COMPARED], indirect=True)
def test_a_filter_on_such_a_column_ignores_what_the_database_ignores(
    odd: Any,
) -> None:
    kinds = {name: column.kind for name, column in columns_of(odd).items()}
    citext = next(f"c{n}" for n, case in enumerate(odd.cases) if case.type == "citext")
    images = [
        RowImage(new.encode(), kinds)
        for new in WalEntry.objects.filter(table_name="zoo_odd").values_list("new", flat=True)
    ]

    def matching(written: str) -> set[str]:
        binding = Binding(id=1, schema="public", table="zoo_odd", filter=written)
        plan = Planner().plan(Subject.service(), [binding])
        assert plan.problems == (None,)
        match = matcher(plan.subscriptions[0].filter)
        return {str(image[citext]) for image in images if match(image) is True}

    assert matching(f"{citext}=eq.SECRET") == {"secret", "Secret"}
    assert matching(f"{citext}=neq.SECRET") == {"secret ", "other", ""}
    assert matching(f"{citext}=in.(SECRET,Other)") == {"secret", "Secret", "other"}
    assert matching(f"{citext}=like.SEC%") == {"secret", "Secret", "secret "}
    assert matching(f"{citext}=isdistinct.SECRET") == {"secret ", "other", "", "None"}
