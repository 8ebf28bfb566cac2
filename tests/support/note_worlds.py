"""Random policies on notes, rows and memberships, and those who ask about them."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import AnonymousUser
from hypothesis import strategies as st

from auth_rls import Subject
from auth_rls.models import Policy
from tests.support.policies import permission, user
from tests.zoo.models import Member, Note, Team

# Few values, so that equality happens; odd ones, so that it has to be right.
TITLES = ["", "a", "A", "ä", "Ä", "ab", "a%", "a_b", "$user.id", "1", "ada", "room:1", "\U0001f600"]


SCORES = [-1, 0, 1, 2, 2**31 - 1]


PRICES = ["0.00", "0.10", "0.30", "12.50", "-1.00", "9999999999.99"]


MOMENTS = ["2025-01-01T00:00:00Z", "2025-01-01T00:00:00.000001Z", "2025-06-30T23:59:59.5+02:00"]


REFS = [str(uuid.UUID(int=1)), str(uuid.UUID(int=2)).upper()]


IDS = [1, 2, 3]


VALUES: dict[str, list[Any]] = {
    "title": [title.replace("$", "$$", 1) if title[:1] == "$" else title for title in TITLES],
    "score": SCORES,
    "price": [*PRICES, 0.1, 3, "0.105"],
    "created": MOMENTS,
    "ref": REFS,
    "owner": IDS,
    "team": IDS,
    "id": IDS,
}


REFERENCES = ["$user.id", "$user.pk", "$claims.n", "$claims.deep.text", "$claims.none", "$claims.l"]


TEXT_REFERENCES = [*REFERENCES, "$user.username", "$user.email", "$role"]


TEXT_OPS = ["iexact", "contains", "icontains", "startswith", "istartswith", "endswith", "iendswith"]


ORDER_OPS = ["exact", "gt", "gte", "lt", "lte"]


def scalars(column: str) -> st.SearchStrategy[Any]:
    references = TEXT_REFERENCES if column == "title" else REFERENCES
    return st.sampled_from([*VALUES[column], *references])


@st.composite
def comparisons(draw: st.DrawFn) -> dict[str, Any]:
    column = draw(st.sampled_from([*VALUES, "is_public"]))
    if column == "is_public":
        return {"is_public": draw(st.booleans())}
    op = draw(
        st.sampled_from(
            [*ORDER_OPS, "in", "range", "isnull", *(TEXT_OPS if column == "title" else ())]
        )
    )
    if op == "isnull":
        return {f"{column}__isnull": draw(st.booleans())}
    if op == "in":
        lists = st.lists(scalars(column), max_size=3)
        return {f"{column}__in": draw(lists | st.just("$claims.l"))}
    if op == "range":
        return {f"{column}__range": [draw(scalars(column)), draw(scalars(column))]}
    return {column if op == "exact" else f"{column}__{op}": draw(scalars(column))}


MEMBER_WHERE = st.sampled_from(
    [
        True,
        False,
        {"user": "$user.id"},
        {"role": "$role"},
        {"role": "admin", "user": "$user.id"},
        {"not": {"user": "$user.id"}},
        {"user__in": "$claims.l"},
        {"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}},
        {"team__in": {"select": "id", "from": "zoo.Team", "where": {"name__icontains": "B"}}},
    ]
)


# A nullable column behind the select: NULLs in the set must not make "not in" unknown.
NOTE_WHERE = st.sampled_from([True, {"is_public": True}, {"score__gte": 1}])


@st.composite
def memberships(draw: st.DrawFn) -> dict[str, Any]:
    column, selected, source = draw(
        st.sampled_from(
            [
                ("team", "team", "zoo.Member"),
                ("owner", "user", "zoo.Member"),
                ("id", "team", "zoo.Member"),
                ("title", "role", "zoo.Member"),
                ("title", "team", "zoo.Member"),
                ("owner", "owner", "zoo.Note"),
                ("title", "ref", "zoo.Note"),
                ("score", "score", "zoo.Note"),
                ("price", "price", "zoo.Note"),
                ("created", "created", "zoo.Note"),
                ("ref", "ref", "zoo.Note"),
            ]
        )
    )
    where = draw(MEMBER_WHERE if source == "zoo.Member" else NOTE_WHERE)
    select = {"select": selected, "from": source, "where": where}
    if column == "title" and draw(st.booleans()):
        select["prefix"] = "room:"
    return {f"{column}__in": select}


PREDICATES = st.recursive(
    st.booleans() | comparisons() | memberships(),
    lambda inner: st.one_of(
        st.builds(lambda parts: {"all": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=6,
)


POLICIES = st.lists(
    st.fixed_dictionaries(
        {
            "audience": st.sampled_from(Policy.Audience.values),
            "mode": st.sampled_from(["permissive", "permissive", "restrictive"]),
            "using": PREDICATES,
        }
    ),
    min_size=1,
    max_size=4,
)


NOTES = st.lists(
    st.fixed_dictionaries(
        {
            "title": st.sampled_from(TITLES),
            "is_public": st.booleans(),
            "owner_id": st.none() | st.sampled_from(IDS),
            "team_id": st.none() | st.sampled_from(IDS),
            "score": st.none() | st.sampled_from(SCORES),
            "price": st.none() | st.sampled_from(PRICES).map(Decimal),
            "created": st.none() | st.sampled_from(MOMENTS).map(datetime.fromisoformat),
            "ref": st.none() | st.sampled_from(REFS).map(uuid.UUID),
        }
    ),
    min_size=1,
    max_size=4,
)


MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(IDS), st.sampled_from(IDS), st.sampled_from(["admin", "anon", "a", "1"])
    ),
    max_size=4,
)


CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "n": st.sampled_from([*SCORES, "1", True, None, [], {}, 0.1, 2**70]),
        "deep": st.fixed_dictionaries({}, optional={"text": st.sampled_from([*TITLES, *REFS])}),
        "l": st.lists(st.sampled_from([*SCORES, *TITLES, *REFS, *MOMENTS, None]), max_size=3),
    },
)


def world(
    policies: list[Any], notes: list[Any], members: list[Any], claims: dict[str, Any]
) -> list[tuple[Subject, Any]]:
    """Fills the database; returns who asks, as a subject and, where there is one, a user."""
    holder = user("ada", "zoo.view_note", pk=1, email="a")
    other = user("1", pk=2)
    root = user("root", pk=3, is_superuser=True)
    for pk, name in zip(IDS, ["a", "Bb", "c"], strict=True):
        Team.objects.create(pk=pk, name=name)
    for user_id, team_id, role in members:
        Member.objects.create(user_id=user_id, team_id=team_id, role=role)
    for pk, fields in enumerate(notes, start=1):
        Note.objects.create(pk=pk, **fields)
    view = permission("zoo.view_note")
    for number, fields in enumerate(policies):
        policy = Policy(name=f"policy {number}", permission=view, **fields)
        policy.full_clean()
        policy.save()
    django_users: list[Any] = [holder, other, root, AnonymousUser()]
    return [
        *((Subject.from_user(asker), asker) for asker in django_users),
        (Subject.service(), None),
        (Subject(role="anon", claims=claims), None),
        (Subject(role="authenticated", claims=claims, user_id="ada"), None),
        (Subject(role="authenticated", claims=claims, user_id=1, user=holder), None),
    ]
