"""The differential test of policies: for every subject and row all doors give the same answer.

The stream judges what the triggers wrote, the querysets let the database judge, has_perm asks for
one row, and on PostgreSQL the row security that `export_rls --apply` installs is met by a role
that is neither owner nor superuser. Policies are random, to depth 4, over every kind of column;
rows and askers come from wall_world.py, so that one policy is tried on all of them at once.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from itertools import chain
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, example, given, note, seed, settings
from hypothesis import strategies as st

from auth_rls import permitted, visible
from auth_rls.access.authority import new_row_predicate, row_predicate
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.models import Policy
from auth_rls.predicates.evaluate import matcher
from auth_rls.sql.columns import columns_of
from auth_rls.sql.rows import row_of
from realtime.event_log.event import RowImage
from realtime.models import WalEntry
from tests.support.policies import permission
from tests.support.policy_world import ROWS, SEED, Asker, build, client, keys, policies
from tests.support.row_security import CLIENT
from tests.zoo.models import Specimen

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

ACTIONS = ("view", "add", "change", "delete")
EXAMPLES = int(os.environ.get("ROWCAST_EXAMPLES", 12))
# Making a failure small takes minutes, so it is done when a failure is repeated.
PHASES = [Phase.explicit, Phase.generate, *([Phase.shrink] if "ROWCAST_SEED" in os.environ else [])]
KINDS = {name: column.kind for name, column in columns_of(Specimen).items()}
COLUMNS = [
    connection.ops.quote_name(name)
    for name, column in columns_of(Specimen).items()
    if name not in ("id", "generated")
]


def _on(action: str, using: Any, mode: str = "permissive", audience: str = "anyone") -> Any:
    return {"action": action, "using": using, "mode": mode, "audience": audience}


# What once went wrong, or was about to; tried in every run.
REMEMBERED: dict[str, list[dict[str, Any]]] = {
    "a computed column is known to the database alone": [
        _on("change", {"generated__in": ["É", "AB", "STRASSE"]}),
        _on("add", {"generated__isnull": False}),
    ],
    "a claim missing inside a select leaves its row out, and not puts it in": [
        _on("view", {"owner__isnull": False}),
        _on(
            "delete",
            {
                "not": {
                    "owner__in": {
                        "select": "user",
                        "from": "zoo.Member",
                        "where": {"not": {"role__in": ["$claims.none", "admin"]}},
                    }
                }
            },
        ),
    ],
    "half a range may still say no": [
        _on("view", {"not": {"big__range": [1, "$claims.none"]}}),
        _on("change", {"not": {"text__range": ["$claims.none", "a"]}}),
    ],
    "a list with a null in it never says no": [
        _on("view", {"not": {"char__in": "$claims.list_text"}}),
        _on("change", {"not": {"integer__in": ["$user.id", "$claims.odd", 7]}}),
        _on("delete", {"not": {"boolean__in": "$claims.list_bool"}}),
    ],
    "a path leads through objects, not into lists": [
        _on("view", {"integer": "$claims.list_int.0"}),
        _on("change", {"not": {"text": "$claims.odd.odd"}}),
    ],
    "a restriction on holders spares the others": [
        _on("view", True),
        _on("view", {"boolean": True}, "restrictive", "permission"),
        _on("delete", True, audience="authenticated"),
        _on("delete", {"not": {"owner": "$user.id"}}, "restrictive", "authenticated"),
    ],
    "a percent sign is no placeholder": [
        _on("view", {"any": [{"text__contains": "%s"}, {"slug__startswith": "%"}]}),
        _on("change", {"char__in": {"select": "title", "from": "zoo.Note", "prefix": "%s"}}),
    ],
    "letters fold as in ASCII, on the claim's side too": [
        _on("view", {"email__icontains": "$claims.text"}),
        _on("change", {"text__iendswith": "$claims.deep.text"}),
        _on("delete", {"not": {"generated__iexact": "$user.username"}}),
    ],
    "a reference is compared alone, and what it lacks is unknown": [
        _on("view", {"all": [{"$claims.text": "a"}, {"$role__in": ["anon", "authenticated"]}]}),
        _on("change", {"not": {"$claims.none": "a"}}),
        _on("delete", {"any": [{"$claims.none__isnull": True}, {"$user.is_staff": True}]}),
        _on("view", {"owner__isnull": False, "$user.id__gte": 1}, "restrictive"),
    ],
    "a claim is a number where it is compared with one": [
        _on("view", {"$claims.int__range": [0, 7]}),
        _on("change", {"not": {"$claims.odd__lt": 1.5}}),
        _on("delete", {"$claims.float__in": [0.1, 1]}),
    ],
    "a reference inside a select chooses all of its rows or none": [
        _on(
            "view",
            {
                "owner__in": {
                    "select": "user",
                    "from": "zoo.Member",
                    "where": {"any": [{"$role": "authenticated"}, {"role": "admin"}]},
                }
            },
        ),
        _on("change", {"$user.username__iexact": "$claims.text"}),
    ],
    "a NaN compares as nothing": [
        _on("view", {"any": [{"real__gt": 0}, {"real__isnull": True}]}),
        _on("change", {"not": {"real__in": [0.1, "$claims.float"]}}),
        _on("delete", {"not": {"real__isnull": True}}),
    ],
    "bounds fall between what a column can hold": [
        _on("view", {"decimal__lt": "1.010000001"}),
        _on("change", {"decimal__gte": "1.00999999"}),
        _on("delete", {"not": {"decimal__in": [1.005, "-1e-9", "$claims.decimal"]}}),
    ],
}

# Rows as they are inserted, or written over another, one by one: each is let in or not.
TRIES = f"""
CREATE ROLE {CLIENT} NOLOGIN;
GRANT ALL ON ALL TABLES IN SCHEMA public TO {CLIENT};
CREATE TABLE staged AS SELECT * FROM zoo_specimen;
GRANT SELECT ON staged TO {CLIENT};
CREATE FUNCTION try_inserts() RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
  row staged%ROWTYPE;
BEGIN
  FOR row IN SELECT * FROM staged LOOP
    BEGIN
      INSERT INTO zoo_specimen (id, {", ".join(COLUMNS)})
        VALUES (row.id, {", ".join(f"row.{name}" for name in COLUMNS)});
      RAISE EXCEPTION USING ERRCODE = 'RC001';
    EXCEPTION WHEN insufficient_privilege THEN NULL; WHEN SQLSTATE 'RC001' THEN RETURN NEXT row.id;
    END;
  END LOOP;
END $$;
CREATE FUNCTION try_updates() RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
  row staged%ROWTYPE;
BEGIN
  FOR row IN SELECT * FROM staged LOOP
    BEGIN
      UPDATE zoo_specimen SET {", ".join(f"{name} = row.{name}" for name in COLUMNS)};
      RAISE EXCEPTION USING ERRCODE = 'RC001';
    EXCEPTION WHEN insufficient_privilege THEN NULL; WHEN SQLSTATE 'RC001' THEN RETURN NEXT row.id;
    END;
  END LOOP;
END $$;
"""


class World:
    """The rows and who asks, and every wall to ask at."""

    def __init__(self) -> None:
        print(f"ROWCAST_SEED={SEED} repeats this run")
        self.askers = build()
        entries = WalEntry.objects.filter(table_name="zoo_specimen").order_by("id")
        raw = entries.values_list("pk_text", "new")
        self.images = {int(pk): RowImage(new.encode(), KINDS) for pk, new in raw}
        self.stored = {row.pk: row for row in Specimen.objects.all()}
        self.instances = {pk: row_of(row) for pk, row in self.stored.items()}
        assert self.images.keys() == self.stored.keys() == set(range(1, ROWS + 1))
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(TRIES)
                # A table with checks still to come takes no policy.
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")

    def install(self, chosen: Iterable[dict[str, Any]]) -> None:
        """Those policies and no others."""
        Policy.objects.all().delete()
        for number, fields in enumerate(chosen):
            fields = dict(fields)
            on = permission(f"zoo.{fields.pop('action')}_specimen")
            policy = Policy(name=f"policy {number}", permission=on, **fields)
            policy.full_clean()
            policy.save()
        if connection.vendor == "postgresql":
            call_command("export_rls", apply=True, verbosity=0, stderr=io.StringIO())

    def check(self, chosen: list[dict[str, Any]], asker: Asker, snapshot: PolicySnapshot) -> int:
        """Every wall about every row; returns how many rows were let through."""
        subject, seen = asker.subject, 0
        expected: dict[str, set[int]] = {}
        for action in ACTIONS:
            if subject is None:
                expected[action] = set()
                continue
            ask = new_row_predicate if action == "add" else row_predicate
            match = matcher(ask(subject, Specimen, action, snapshot=snapshot))
            expected[action] = {pk for pk, row in self.images.items() if match(row) is True}
            by_instance = {pk for pk, row in self.instances.items() if match(row) is True}
            if _computed(chosen, action):
                # An instance does not know what the database computes: that is unknown to it.
                assert by_instance <= expected[action]
            else:
                agree(asker, action, chosen, stream=expected[action], instance=by_instance)
            seen += len(expected[action])
        if subject is not None:
            everything = Specimen.objects.all()
            agree(
                asker,
                "view",
                chosen,
                stream=expected["view"],
                visible=keys(visible(everything, subject, snapshot=snapshot)),
            )
            for action in ("change", "delete"):
                found = keys(permitted(everything, subject, action, snapshot=snapshot))
                agree(asker, action, chosen, stream=expected[action], permitted=found)
        if connection.vendor == "postgresql":
            self.check_row_security(chosen, asker, snapshot, expected)
        return seen

    def check_row_security(
        self,
        chosen: list[dict[str, Any]],
        asker: Asker,
        snapshot: PolicySnapshot,
        expected: dict[str, set[int]],
    ) -> None:
        with client(asker) as run:
            agree(
                asker,
                "view",
                chosen,
                stream=expected["view"],
                sql=run("SELECT id FROM zoo_specimen"),
            )
            # What locks a row must be seen and may be changed.
            locked = run("SELECT id FROM zoo_specimen FOR UPDATE")
            both = expected["view"] & expected["change"]
            agree(asker, "view and change", chosen, stream=both, sql=locked)
        # Without WHERE and RETURNING nothing is read, and only the action's policies count.
        with client(asker) as run:
            run("DELETE FROM zoo_specimen")
            left = run("SELECT id FROM zoo_specimen", as_owner=True)
            agree(asker, "delete", chosen, stream=expected["delete"], sql=set(self.images) - left)
        with client(asker, emptied=True) as run:
            agree(asker, "add", chosen, stream=expected["add"], sql=run("SELECT try_inserts()"))
        if asker.subject is None or not expected["change"]:
            return
        match = matcher(new_row_predicate(asker.subject, Specimen, "change", snapshot=snapshot))
        pk = min(expected["change"])
        rows = {key: {**dict(image.items()), "id": pk} for key, image in self.images.items()}
        with client(asker, only=pk) as run:
            allowed = {key for key, row in rows.items() if match(row) is True}
            agree(asker, "changed", chosen, stream=allowed, sql=run("SELECT try_updates()"))

    def check_objects(
        self, chosen: list[dict[str, Any]], snapshot: PolicySnapshot, pk: int
    ) -> None:
        """One row at has_perm, for everybody who is a Django user."""
        for asker in self.askers:
            if asker.user is None or asker.subject is None:
                continue
            user = (
                asker.user
                if asker.user.pk is None
                else type(asker.user).objects.get(pk=asker.user.pk)
            )
            for action in ACTIONS:
                ask = new_row_predicate if action == "add" else row_predicate
                match = matcher(ask(asker.subject, Specimen, action, snapshot=snapshot))
                verdict = {pk} if match(self.images[pk]) is True else set()
                if action == "add" and _computed(chosen, action):
                    continue
                name = f"zoo.{action}_specimen"
                found = {pk} if user.has_perm(name, self.stored[pk]) else set()
                agree(asker, action, chosen, stream=verdict, has_perm=found)
                found = {pk} if async_to_sync(user.ahas_perm)(name, self.stored[pk]) else set()
                agree(asker, action, chosen, stream=verdict, ahas_perm=found)


def _computed(chosen: list[dict[str, Any]], action: str) -> bool:
    return "generated" in str([fields for fields in chosen if fields["action"] == action])


def agree(asker: Asker, action: str, chosen: list[dict[str, Any]], **walls: set[int]) -> None:
    (one, first), (two, second) = walls.items()
    if first == second:
        return
    pk = min(first ^ second)
    row = Specimen.objects.filter(pk=pk).values().first()
    raise AssertionError(
        f"{action} of row {pk} by {asker.name}: {one} says {pk in first}, {two} {pk in second}\n"
        f"policies: {chosen}\nrow: {row}\nclaims: {asker.claims}\nROWCAST_SEED={SEED}"
    )


@pytest.fixture
def world(db: None) -> World:
    return World()


def remembered(test: Any) -> Any:
    for name, chosen in REMEMBERED.items():
        test = example(chosen=chosen, pk=1).via(name)(test)
    return test


SETS = st.tuples(*(policies(action) for action in ACTIONS)).map(lambda sets: [*chain(*sets)])


def test_every_wall_gives_the_same_answer(world: World) -> None:
    verdicts, seen = 0, 0

    @remembered
    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=PHASES,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(SETS, st.integers(1, ROWS))
    def walls(chosen: list[dict[str, Any]], pk: int) -> None:
        nonlocal verdicts, seen
        note(f"ROWCAST_SEED={SEED}")
        with transaction.atomic():
            world.install(chosen)
            snapshot = PolicySnapshot.load()
            for asker in world.askers:
                seen += world.check(chosen, asker, snapshot)
                verdicts += len(ACTIONS) * ROWS
            world.check_objects(chosen, snapshot, pk)
            transaction.set_rollback(True)

    walls()

    assert verdicts >= 10_000
    # It is worth something only if rows are both let through and kept back.
    assert verdicts * 0.05 < seen < verdicts * 0.95
