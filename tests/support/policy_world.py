"""A world to try policies on: rows with every kind of column, all edge, and all who may ask.

Made from one number: the same number makes the same world. ROWCAST_SEED sets it; else every run
has its own, and a failure prints it. Policies come from strategies, so that hypothesis makes a
failing set as small as it can.
"""

from __future__ import annotations

import json
import math
import os
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.management.color import no_style
from django.db import connection, transaction
from hypothesis import strategies as st

from auth_rls import Subject
from auth_rls.predicates.kinds import OPAQUE, Kind
from auth_rls.predicates.operators import policy_operators
from auth_rls.sql.columns import columns_of, model_named, schema_of
from auth_rls.subjects import tokens
from tests.support.policies import permission
from tests.support.row_security import CLIENT
from tests.zoo.models import Member, Note, Specimen, Team

SEED = int(os.environ.get("ROWCAST_SEED") or secrets.randbelow(10**9))

ROWS = 40

TEXTS = ["", "a", "A", "ab", "aB", "ä", "Ä", "É", "ß", "ı", "İ", "\u212a", "日", "\U0001f600"]
TEXTS += ["\uffff", "%", "_", "a%", "a_b", "\\", "'", '"', "$user.id", "1", "7", "ada", "anon"]
TEXTS += ["room:1", "room:2", "null", "true", " a", "a\n", "x'; --", "{}", "%s", "STRASSE"]
ZERO, TOP = UUID(int=0), UUID(int=2**128 - 1)
UUIDS = [ZERO, TOP, UUID("6c84fb90-12c4-11e1-840d-7b25c5ee775a")]
MOMENTS = [
    datetime(2025, 11, 3, 9, 32, 55, tzinfo=UTC),
    datetime(2025, 11, 3, 9, 32, 55, 1, tzinfo=UTC),
    datetime(2025, 11, 3, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
]
SPANS = [timedelta(0), timedelta(microseconds=-1), timedelta(days=1, hours=2), timedelta(days=-400)]
SPANS += [timedelta(seconds=86399, microseconds=999999), timedelta(days=100_000)]
ADDRESSES = ["10.0.0.1", "192.0.2.255", "::1", "2001:db8::a", "::ffff:1.2.3.4"]
DECIMALS = [Decimal(t) for t in ("0", "-0.0001", "1.0100", "1.0050", "99999999999.9999", "12.5")]

# What a row may hold, by kind; integers besides by what fits.
CELLS: dict[Kind, list[Any]] = {
    Kind.BOOL: [True, False],
    Kind.INT: [0, 1, 2, 7, -1, 2**15 - 1, -(2**15), 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)],
    Kind.FLOAT: [0.0, -0.0, 0.1, 1.0, 1e300, -1e-300, 2.0**53, 2.0**53 + 2, math.inf, -math.inf],
    Kind.DECIMAL: DECIMALS,
    Kind.TEXT: TEXTS,
    Kind.UUID: UUIDS,
    Kind.DATE: [date(2025, 11, 3), date(1, 1, 1), date.max, date(2024, 2, 29)],
    Kind.TIME: [clock(), clock(9, 32), clock(9, 32, 55, 1), clock.max],
    Kind.DATETIME: MOMENTS,
    Kind.INTERVAL: SPANS,
    Kind.INET: ADDRESSES,
    Kind.JSON: [{"a": 1}, [], "null", 0],
    Kind.BINARY: [b"", b"\0a"],
}
# What a policy may compare with: all of those as JSON, and what no row can hold.
LITERALS: dict[Kind, list[Any]] = {
    Kind.BOOL: [True, False],
    Kind.INT: CELLS[Kind.INT],
    Kind.FLOAT: [0, 0.1, 1, 1e300, -1e-300, 2**53, 2**53 + 1, 5e-324, 1.7976931348623157e308],
    Kind.DECIMAL: [
        *(0, "1.01", 1.01, "1.00999999", "1.010000001", "1.005", 1.005, "-1e-9", "1e40"),
        *("99999999999.9999", "12.50", "-1e40", "-0"),
    ],
    Kind.TEXT: TEXTS,
    Kind.UUID: [*map(str, UUIDS), str(UUIDS[2]).upper(), UUIDS[1].hex],
    Kind.DATE: ["2025-11-03", "0001-01-01", "9999-12-31", "2024-2-29"],
    Kind.TIME: ["00:00", "09:32", "09:32:55.000001", "23:59:59.9999999"],
    Kind.DATETIME: [
        *("2025-11-03T09:32:55Z", "2025-11-03 10:32:55.000001+01:00", "2025-11-03"),
        *("0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "1969-12-31T18:59:59.999999-05"),
    ],
    Kind.INTERVAL: ["P0D", "-PT0.000001S", "P1DT2H", "1 day 02:00", "-P400D", "P999999999D"],
    Kind.INET: [*ADDRESSES, "2001:DB8:0::A", "10.0.0.1/32"],
}
# What else a claim may be. A text may be any kind's; a number too large, or no number, is none's.
ODD = [None, True, 0, 1, 7, -1, 1.0, 0.1, 2**63, 1e300, "", "1", "7.0", "t", "a", [], {}, ["a"]]

SOURCES = [
    ("owner", "zoo.Member", "user"),
    ("other_name", "zoo.Note", "score"),
    ("big", "zoo.Note", "score"),
    ("small", "zoo.Member", "team"),
    ("uuid", "zoo.Note", "ref"),
    ("decimal", "zoo.Note", "price"),
    ("moment", "zoo.Note", "created"),
    ("boolean", "zoo.Note", "is_public"),
    ("char", "zoo.Note", "title"),
    ("text", "zoo.Note", "title"),
    ("generated", "zoo.Note", "title"),
    ("slug", "zoo.Note", "ref"),
    ("email", "zoo.Member", "team"),
    ("team", "zoo.Member", "team"),
    ("team", "zoo.Team", "pk"),
    ("user", "zoo.Note", "owner"),
    ("owner", "zoo.Note", "owner"),
    ("name", "zoo.Member", "role"),
    ("title", "zoo.Member", "role"),
    ("role", "zoo.Note", "body"),
]


def _references(kind: Kind) -> list[str]:
    own = {
        Kind.TEXT: ["$user.username", "$user.email", "$user.is_staff", "$role", "$user.first_name"],
        Kind.BOOL: ["$user.is_staff", "$user.first_name"],
        Kind.DATETIME: ["$user.date_joined", "$user.last_login", "$user.first_name"],
    }
    claims = ["none", kind, f"deep.{kind}", f"list_{kind}", "odd", "odd.odd", "list_int.0", "sub"]
    common = ["$user.id", "$user.pk", *(f"$claims.{path}" for path in claims)]
    return common + own.get(kind, ["$user.first_name", "$user.is_staff"])


def _literals(kind: Kind) -> st.SearchStrategy[Any]:
    escaped = ["$" + v if isinstance(v, str) and v[:1] == "$" else v for v in LITERALS[kind]]
    return st.sampled_from(escaped)


def _values(kind: Kind) -> st.SearchStrategy[Any]:
    return _literals(kind) | _literals(kind) | st.sampled_from(_references(kind))


# References that a policy compares alone, with the kind that their literals have there.
ALONE: list[tuple[str, Kind]] = [
    ("$role", Kind.TEXT),
    ("$user.id", Kind.INT),
    ("$user.pk", Kind.INT),
    ("$user.username", Kind.TEXT),
    ("$user.is_staff", Kind.BOOL),
    ("$user.last_login", Kind.DATETIME),
    *((f"$claims.{path}", kind) for kind in (Kind.TEXT, Kind.BOOL) for path in (kind, "odd")),
    *((f"$claims.{path}", Kind.DECIMAL) for path in ("int", "float", "decimal", "odd", "deep.int")),
    ("$claims.sub", Kind.TEXT),
    ("$claims.none", Kind.TEXT),
    ("$claims.list_int", Kind.DECIMAL),
]
NUMBERS = [0, 1, 7, -1, 0.1, 1.5, 2**53 + 1, 2**63 - 1, 1e300, -1e-9]


@st.composite
def _of_subject(draw: st.DrawFn) -> dict[str, Any]:
    """A comparison of the subject, whatever the row."""
    name, kind = draw(st.sampled_from(ALONE))
    literals = st.sampled_from(NUMBERS) if kind is Kind.DECIMAL else _literals(kind)
    values = literals | st.sampled_from(["$claims.none", "$claims.odd", f"$claims.{kind}"])
    op = draw(st.sampled_from(sorted(policy_operators(kind))))
    if op == "isnull":
        return {f"{name}__isnull": draw(st.booleans())}
    if op == "in":
        lists = st.lists(literals, max_size=3) | st.sampled_from([f"$claims.list_{kind}"])
        return {f"{name}__in": draw(lists)}
    if op == "range":
        return {f"{name}__range": [draw(literals), draw(literals)]}
    if kind in (Kind.DECIMAL, Kind.BOOL) and name.startswith("$claims"):
        # Compared with a reference, a claim is a text.
        values = literals
    return {f"{name}__{op}": draw(values)}


@st.composite
def _comparisons(draw: st.DrawFn, label: str, selects: int) -> dict[str, Any]:
    columns = schema_of(model_named(label)).columns
    if draw(st.integers(0, 5)) == 0:
        return draw(_of_subject())
    if selects and draw(st.integers(0, 3)) == 0:
        fitting = [source for source in SOURCES if source[0] in columns]
        column, source, inner = draw(st.sampled_from(fitting))
        select: dict[str, Any] = {"select": inner, "from": source}
        where = draw(st.none() | predicates(source, 2, selects - 1))
        if where is not None:
            select["where"] = where
        if columns[column][1] is Kind.TEXT and draw(st.booleans()):
            select["prefix"] = draw(st.sampled_from(["room:", "a", "%s", "'"]))
        return {f"{column}__in": select}
    name = draw(st.sampled_from(sorted(columns)))
    kind = columns[name][1]
    op = draw(st.sampled_from(sorted(policy_operators(kind))))
    if op == "isnull":
        return {f"{name}__isnull": draw(st.booleans())}
    if op == "in":
        lists = st.sampled_from([f"$claims.list_{kind}", f"$claims.{kind}", "$user.id"])
        return {f"{name}__in": draw(st.lists(_values(kind), max_size=3) | lists)}
    if op == "range":
        return {f"{name}__range": [draw(_values(kind)), draw(_values(kind))]}
    return {f"{name}__{op}": draw(_values(kind))}


def predicates(label: str, depth: int = 4, selects: int = 3) -> st.SearchStrategy[Any]:
    leaves = _comparisons(label, selects)
    result: st.SearchStrategy[Any] = leaves
    for _ in range(depth - 1):
        parts = st.lists(result, min_size=1, max_size=3)
        result = st.one_of(
            leaves,
            result,
            parts.map(lambda parts: {"all": parts}),
            parts.map(lambda parts: {"any": parts}),
            result.map(lambda part: {"not": part}),
        )
    return result | st.booleans()


@st.composite
def policies(draw: st.DrawFn, action: str) -> list[dict[str, Any]]:
    """One to three policies of one action on specimens."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        fields: dict[str, Any] = {
            "action": action,
            "audience": draw(st.sampled_from(["anyone", "authenticated", "permission"])),
            "mode": "permissive",
            "using": draw(predicates("zoo.Specimen")),
        }
        if number:
            fields["mode"] = draw(st.sampled_from(["permissive", "restrictive"]))
        if action in ("add", "change") and draw(st.booleans()):
            fields["with_check"] = draw(predicates("zoo.Specimen"))
        found.append(fields)
    return found


@dataclass(frozen=True)
class Asker:
    """A client with a token or session claims, and a Django user if there is one. Without a subject
    its token is refused."""

    name: str
    claims: dict[str, Any] | None
    subject: Subject | None
    user: Any = None


def build() -> list[Asker]:
    """Fills the tables; returns who asks."""
    rng = random.Random(SEED)
    holders = Group.objects.create(name="holders")
    for action in ("view", "add", "change", "delete"):
        holders.permissions.add(permission(f"zoo.{action}_specimen"))
    common = {"last_login": MOMENTS[1], "date_joined": MOMENTS[0]}
    ada = User.objects.create(pk=1, username="ada", email="a", is_staff=True, **common)
    ada.groups.add(holders)
    other = User.objects.create(pk=2, username="7", first_name="2025-11-03", date_joined=MOMENTS[4])
    other.user_permissions.add(permission("zoo.view_specimen"), permission("zoo.add_specimen"))
    plain = User.objects.create(pk=3, username="ß", first_name="true", date_joined=MOMENTS[2])
    User.objects.create(pk=7, username="root", is_superuser=True)
    User.objects.create(pk=8, username="gone", is_superuser=True, is_active=False)
    _fill(rng)
    users = [User.objects.get(pk=pk) for pk in (ada.pk, other.pk, plain.pk, 7)]
    askers = [_of_user(user) for user in users]
    askers.append(_of_user(AnonymousUser()))
    askers.append(Asker("nobody", None, None))
    for sub, role in (
        ("1", "authenticated"),
        (3, "authenticated"),
        ("1", "anon"),
        ("somebody else", "authenticated"),
        ("01", "authenticated"),
        (None, "authenticated"),
        ("8", "authenticated"),
        ("8", "service_role"),
        (True, "authenticated"),
        ("7", "anon"),
        ("1", "service_role"),
        ("1", "postgres"),
    ):
        askers.append(asker_of_token(rng, sub, role))
    return askers


def _of_user(user: Any) -> Asker:
    subject = Subject.from_user(user)
    return Asker(f"user {user}", json.loads(json.dumps(dict(subject.claims))), subject, user)


def asker_of_token(rng: random.Random, sub: Any, role: str) -> Asker:
    claims: dict[str, Any] = {"sub": sub, "role": role, "exp": int(time.time()) + 10**6}
    if sub is None:
        del claims["sub"]
    deep: dict[str, Any] = {}
    for kind, literals in LITERALS.items():
        for place in (claims, deep):
            if rng.random() < 0.8:
                place[kind] = rng.choice([*literals, *literals, *ODD])
        claims[f"list_{kind}"] = rng.sample([*literals, *ODD], rng.randint(0, 3))
    claims |= {"deep": deep, "odd": rng.choice(ODD)}
    try:
        subject = Subject.from_token(tokens.sign(claims))
    except tokens.TokenError:
        return Asker(f"token {sub} {role}, refused", claims, None)
    return Asker(f"token {sub} {role}", claims, subject)


def _fill(rng: random.Random) -> None:
    for pk, name in ((1, "a"), (2, "B"), (7, "é")):
        Team.objects.create(pk=pk, name=name)
    for _ in range(6):
        Member.objects.create(
            user_id=rng.choice([1, 2, 3]),
            team_id=rng.choice([1, 2, 7]),
            role=rng.choice(["admin", "anon", "a", "1", "ada"]),
        )
    for _ in range(8):
        Note.objects.create(
            owner_id=rng.choice([None, 1, 2, 3]),
            team_id=rng.choice([None, 1, 2, 7]),
            title=rng.choice(TEXTS),
            body=rng.choice(TEXTS),
            is_public=rng.random() < 0.5,
            score=rng.choice([None, 0, 1, 7, -1, 2**31 - 1]),
            price=rng.choice([None, Decimal("1.01"), Decimal("0"), Decimal("12.50")]),
            created=rng.choice([None, *MOMENTS]),
            ref=rng.choice([None, *UUIDS]),
        )
    ranges = {"SmallIntegerField": 15, "IntegerField": 31, "PositiveSmallIntegerField": 15}
    ranges |= {"PositiveIntegerField": 31, "BigIntegerField": 63, "PositiveBigIntegerField": 63}
    for pk in range(1, ROWS + 1):
        cells: dict[str, Any] = {}
        # The first row is all NULL, the last ones hold few.
        missing = max(0.05, 1 - pk / 10)
        for column in columns_of(Specimen).values():
            if column.attname in ("id", "twin_id", "generated") or rng.random() < missing:
                continue
            choices = CELLS[column.kind]
            if column.attname == "owner_id":
                choices = [1, 2, 3, 7]
            elif column.kind is Kind.INT:
                internal = column.field.get_internal_type()
                top = 2 ** ranges[internal]
                low = 0 if internal.startswith("Positive") else -top
                choices = [n for n in choices if low <= n < top]
            elif column.kind is Kind.TEXT and column.field.max_length is not None:
                choices = [c for c in choices if len(c) <= column.field.max_length]
            cells[column.attname] = rng.choice(choices)
        if pk > 5 and rng.random() < 0.5:
            cells["twin_id"] = pk - 5
        Specimen.objects.create(pk=pk, **cells)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Only PostgreSQL keeps it, and no test of any kind is true of it.
            cursor.execute("UPDATE zoo_specimen SET real = 'NaN' WHERE id IN (9, 19)")
        for statement in connection.ops.sequence_reset_sql(no_style(), [Specimen, Team, User]):
            cursor.execute(statement)


def comparable_columns() -> list[str]:
    """The columns of a specimen that a predicate may compare."""
    return [name for name, column in columns_of(Specimen).items() if column.kind not in OPAQUE]


def keys(queryset: Any) -> set[int]:
    return set(queryset.values_list("pk", flat=True))


@contextmanager
def client(asker: Asker, *, emptied: bool = False, only: int | None = None) -> Iterator[Any]:
    """Runs statements as the wall's other side, and takes back what they did."""
    claims = "" if asker.claims is None else json.dumps(asker.claims)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
        if emptied:
            cursor.execute("DELETE FROM zoo_specimen")
        if only is not None:
            cursor.execute("DELETE FROM zoo_specimen WHERE id <> %s", [only])

        def run(sql: str, *, as_owner: bool = False) -> set[int]:
            cursor.execute(f"SET LOCAL ROLE {CLIENT}" if not as_owner else "RESET ROLE")
            cursor.execute(sql)
            found = {row[0] for row in cursor.fetchall()} if cursor.description else set()
            cursor.execute("RESET ROLE")
            return found

        yield run
        transaction.set_rollback(True)
