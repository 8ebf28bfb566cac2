"""Multi-table inheritance: the policies of every parent count for a child's row, at every door."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import QuerySet
from django.test import override_settings
from django.urls import include, path
from rest_framework import viewsets
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient

from auth_rls import PolicyDenied, Subject, check_add, check_change, permitted, visible
from auth_rls.access.authority import row_predicate
from auth_rls.explain.askers import asker
from auth_rls.explain.questions import answer, question
from auth_rls.models import Policy
from auth_rls.predicates.evaluate import matcher
from auth_rls.rest import (
    PolicyFilterBackend,
    PolicyModelSerializer,
    PolicyOrderingFilter,
    PolicyPermission,
    PolicySearchFilter,
)
from auth_rls.sql.rows import row_of
from tests.support.live_client import everything_handed_out
from tests.support.policies import policy, user
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.zoo.models import CityPlace, Diner, Place, Restaurant

MINE = {"owner": "$user.id"}
SERVED = {"serves": "soup"}
MODELS = (Place, CityPlace, Restaurant, Diner)


def view_of(model: Any) -> type[viewsets.ModelViewSet]:
    class Shown(PolicyModelSerializer):
        class Meta:
            fields = "__all__"

    Shown.Meta.model = model  # type: ignore[attr-defined]

    class View(viewsets.ModelViewSet):
        queryset = model.objects.all()
        serializer_class = Shown
        permission_classes = [PolicyPermission]
        filter_backends = [PolicyFilterBackend, PolicyOrderingFilter, PolicySearchFilter]
        search_fields = ["city"]
        ordering_fields = "__all__"

    return View


router = SimpleRouter()
for _model in MODELS:
    router.register(_model._meta.model_name or "", view_of(_model), basename=_model.__name__)
urlpatterns = [path("", include(router.urls))]


@pytest.fixture
def places(db: None) -> dict[str, Any]:
    ada, bob = user("ada"), user("bob")
    policy(True, on="auth.view_user")
    return {
        "ada": ada,
        "bob": bob,
        "mine": Diner.objects.create(owner=ada, city="Oslo", serves="soup", seats=1),
        "other": Diner.objects.create(owner=bob, city="Rome", serves="soup", seats=2),
        "salad": Diner.objects.create(owner=ada, city="Bern", serves="salad", seats=3),
    }


def client_of(account: Any) -> APIClient:
    client = APIClient()
    client.force_authenticate(account)
    return client


def seen(rows: QuerySet[Any], asker: Any) -> set[str]:
    """Cities that `asker` sees: by queryset, object, stream and REST, which must agree."""
    model = rows.model._meta.concrete_model
    by_queryset = {row.city for row in visible(rows, asker)}
    match = matcher(row_predicate(Subject.from_user(asker), model))
    by_stream = {row.city for row in model.objects.all() if match(row_of(row)) is True}
    name = f"zoo.view_{model._meta.model_name}"
    by_object = {row.city for row in model.objects.all() if asker.has_perm(name, row)}
    with override_settings(ROOT_URLCONF=__name__):
        answer = client_of(asker).get(f"/{rows.model._meta.model_name}/")
    assert {row["city"] for row in answer.json()} == by_queryset == by_stream == by_object
    return by_queryset


def test_a_row_is_seen_when_the_policies_on_every_level_let_it_through(
    places: dict[str, Any],
) -> None:
    ada = places["ada"]
    policy(True, on="zoo.view_diner")
    assert seen(Diner.objects.all(), ada) == set()
    policy(SERVED, on="zoo.view_restaurant")
    assert seen(Diner.objects.all(), ada) == set()
    policy(MINE, on="zoo.view_place")
    assert seen(Diner.objects.all(), ada) == {"Oslo"}
    assert seen(Restaurant.objects.all(), ada) == {"Oslo"}
    assert seen(Place.objects.all(), ada) == {"Oslo", "Bern"}
    assert seen(CityPlace.objects.all(), ada) == {"Oslo", "Bern"}
    policy({"city": "Oslo"}, on="zoo.view_place", mode="restrictive", name="only Oslo")
    assert seen(Diner.objects.all(), places["bob"]) == set()


def test_a_wall_around_a_parent_stands_around_the_child(places: dict[str, Any]) -> None:
    for name in ("place", "restaurant", "diner"):
        policy(True, on=f"zoo.view_{name}")
    assert len(seen(Diner.objects.all(), places["ada"])) == 3
    policy({"city__in": ["Oslo"]}, on="zoo.view_place", mode="restrictive", name="wall")
    assert seen(Diner.objects.all(), places["ada"]) == {"Oslo"}


@pytest.mark.parametrize("action", ["change", "delete"])
def test_a_childs_row_is_written_when_every_parent_lets_it(
    places: dict[str, Any], action: str
) -> None:
    for name in ("restaurant", "diner"):
        policy(True, on=f"zoo.{action}_{name}")
    assert not permitted(Diner.objects.all(), places["ada"], action).exists()
    policy(MINE, on=f"zoo.{action}_place")
    rows = permitted(Diner.objects.all(), places["ada"], action)
    assert {row.city for row in rows} == {"Oslo", "Bern"}
    assert places["ada"].has_perm(f"zoo.{action}_diner", places["mine"])
    assert not places["ada"].has_perm(f"zoo.{action}_diner", places["other"])


def test_the_new_row_of_each_table_is_judged_by_its_own_policies(places: dict[str, Any]) -> None:
    ada = places["ada"]
    for name in ("restaurant", "diner"):
        policy(True, on=f"zoo.change_{name}")
        policy(with_check=True, on=f"zoo.add_{name}")
    policy(MINE, with_check={**MINE, "city__in": ["Oslo", "Bern"]}, on="zoo.change_place")
    policy(with_check={**MINE, "city": "Oslo"}, on="zoo.add_place")
    mine = Diner.objects.get(pk=places["mine"].pk)
    mine.city = "Bern"
    check_change(mine, ada)
    for city, owner in (("Paris", ada), ("Oslo", places["bob"])):
        mine.city, mine.owner = city, owner
        with pytest.raises(PolicyDenied):
            check_change(mine, ada)
    check_add(Diner(owner=ada, city="Oslo"), ada)
    for values in ({"owner": ada, "city": "Bern"}, {"owner": places["bob"], "city": "Oslo"}):
        with pytest.raises(PolicyDenied):
            check_add(Diner(**values), ada)
        assert not ada.has_perm("zoo.add_diner", Diner(**values))


def test_attaching_a_child_to_a_parents_row_changes_that_row(places: dict[str, Any]) -> None:
    ada, bob = places["ada"], places["bob"]
    policy(with_check=True, on="zoo.add_restaurant")
    policy(with_check=True, on="zoo.add_place")
    theirs = Place.objects.create(owner=bob, city="Rome")
    for attached in (
        Restaurant(place_ptr=theirs, owner=ada, city="Oslo"),
        Restaurant(place_ptr_id=theirs.pk, owner=ada, city="Oslo"),
    ):
        with pytest.raises(PolicyDenied):
            check_add(attached, ada)
    policy(MINE, on="zoo.change_place")
    with pytest.raises(PolicyDenied):
        check_add(Restaurant(place_ptr=theirs, owner=ada), ada)
    own = Place.objects.create(owner=ada)
    check_add(Restaurant(place_ptr=own, owner=ada), ada)
    with pytest.raises(PolicyDenied):
        check_add(Restaurant(place_ptr=own, owner=bob), ada)


@pytest.mark.urls(__name__)
def test_rest_writes_no_parents_row_that_its_policies_forbid(places: dict[str, Any]) -> None:
    client = client_of(places["ada"])
    for action in ("view", "change", "delete", "add"):
        for name in ("restaurant", "diner"):
            policy(True, on=f"zoo.{action}_{name}")
    policy(True, on="zoo.view_place")
    policy(MINE, with_check={**MINE, "city": "Oslo"}, on="zoo.change_place")
    policy(False, on="zoo.delete_place")
    policy(with_check=MINE, on="zoo.add_place")
    mine, other = f"/diner/{places['mine'].pk}/", f"/diner/{places['other'].pk}/"
    ada, bob = places["ada"].pk, places["bob"].pk
    assert client.patch(mine, {"seats": 7}).status_code == 200
    for method, url, data in (
        (client.patch, mine, {"city": "Paris"}),
        (client.patch, mine, {"owner": bob}),
        (client.patch, other, {"seats": 7}),
        (client.delete, mine, None),
        (client.post, "/diner/", {"owner": bob, "city": "Oslo", "seats": 1, "serves": "x"}),
    ):
        assert method(url, data).status_code == 403, (method, data)
    posted = {"owner": ada, "city": "Rio", "seats": 1, "serves": "x", "code": "c", "sealed": "s"}
    assert client.post("/diner/", posted).status_code == 201
    assert set(Place.objects.values_list("city", flat=True)) == {"Oslo", "Rome", "Bern", "Rio"}


@pytest.mark.urls(__name__)
def test_neither_order_nor_search_tells_of_a_parents_hidden_row(places: dict[str, Any]) -> None:
    client = client_of(places["ada"])
    for name in ("restaurant", "diner"):
        policy(True, on=f"zoo.view_{name}")
    policy(MINE, on="zoo.view_place")
    assert client.get("/diner/?search=Rome").json() == []
    assert len(client.get("/diner/?search=Oslo").json()) == 1
    cities = [row["city"] for row in client.get("/diner/?ordering=-city").json()]
    assert cities == ["Oslo", "Bern"]


class AsSubclasses(QuerySet):
    """Gives rows as instances of their deepest model, as django-polymorphic does."""

    polymorphic_disabled = False

    def non_polymorphic(self) -> QuerySet[Any]:
        return self


def test_a_queryset_of_subclasses_shows_no_child_that_its_own_policies_hide(
    places: dict[str, Any],
) -> None:
    plain = Place.objects.create(owner=places["ada"], city="Nice")
    policy(True, on="zoo.view_place")
    rows = visible(AsSubclasses(Place), places["ada"])
    assert [row.pk for row in rows] == [plain.pk]
    policy(SERVED, on="zoo.view_restaurant")
    policy({"seats": 2}, on="zoo.view_diner")
    rows = visible(AsSubclasses(Place), places["ada"])
    assert {row.city for row in rows} == {"Nice", "Rome"}


def test_the_explanation_names_the_parents_policy_that_decides(places: dict[str, Any]) -> None:
    policy(True, on="zoo.view_restaurant", name="restaurants")
    policy(MINE, on="zoo.view_place", name="own places")
    who = asker(user="ada")
    for key, allowed in (("mine", True), ("other", False)):
        found = answer(who, question(who, "zoo.view_restaurant", str(places[key].pk)))
        assert (found.allowed, found.agree) == (allowed, True)
        assert [report.name for report in found.explanation.policies] == [
            "restaurants",
            "own places",
        ]
    assert "zoo.view_place" in found.explanation.because
    assert [r.name for r in found.explanation.policies if r.decides] == ["own places"]


@pytest.mark.usefixtures("wal", "closing_hub")
async def test_the_stream_follows_the_parents_rows() -> None:
    def prepare() -> Any:
        ada = user("ada")
        policy(True, on="zoo.view_restaurant")
        policy(MINE, on="zoo.view_place")
        return ada

    ada = await db(prepare)
    client = await Client(token=token(ada.pk)).connect()
    table = {"event": "*", "schema": "public", "table": "zoo_restaurant", "live": True}
    await client.join(postgres_changes=[table])

    def write() -> Any:
        Restaurant.objects.create(serves="hidden")
        return Restaurant.objects.create(owner=ada, serves="soup").pk

    key = await db(write)
    change = await client.change()
    assert (change["type"], change["record"]["serves"]) == ("INSERT", "soup")
    await db(lambda: Place.objects.filter(pk=key).update(owner=None))
    change = await client.change()
    assert (change["type"], change["old_record"]) == ("DELETE", {"place_ptr_id": key})
    await db(lambda: Restaurant.objects.filter(pk=key).update(serves="salad"))
    await db(lambda: Place.objects.filter(pk=key).update(owner=ada))
    assert (await client.change())["record"]["serves"] == "salad"
    await db(lambda: Policy.objects.filter(permission__codename="view_place").update(enabled=False))
    change = await client.change()
    assert change["type"] == "DELETE"
    await everything_handed_out()
    await client.close()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="row security is PostgreSQL's")
def test_the_exported_policies_agree(places: dict[str, Any]) -> None:
    for name in ("restaurant", "diner"):
        policy(True, on=f"zoo.view_{name}")
        policy(True, on=f"zoo.change_{name}")
    policy(MINE, on="zoo.view_place", audience="authenticated")
    policy({"city": "Oslo"}, on="zoo.change_place")
    connection.check_constraints()
    call_command("export_rls", "--apply", stdout=io.StringIO(), stderr=io.StringIO())

    def rows(table: str, account: Any) -> tuple[int, int]:
        claims = json.dumps({"sub": str(account.pk), "role": "authenticated"})
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("CREATE ROLE rowcast_diner NOLOGIN")
            cursor.execute("GRANT ALL ON zoo_place, zoo_restaurant, zoo_diner TO rowcast_diner")
            cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
            cursor.execute("SET LOCAL ROLE rowcast_diner")
            cursor.execute(f"SELECT * FROM {table}")
            found = len(cursor.fetchall())
            cursor.execute(f"UPDATE {table} SET restaurant_ptr_id = restaurant_ptr_id")
            changed = cursor.rowcount
            transaction.set_rollback(True)
        return found, changed

    for account in (places["ada"], places["bob"]):
        found = visible(Diner.objects.all(), account)
        changeable = permitted(found, account, "change")
        assert rows("zoo_diner", account) == (found.count(), changeable.count())
    out = io.StringIO()
    call_command("export_rls", "--check", stdout=out, stderr=io.StringIO())
